"""Fonts for names in any script: DejaVu, which matplotlib brings, and for letters that it lacks what is installed."""

from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from socodet.runtime.notices import notice

USUAL = "DejaVu Sans"
PLACEHOLDERS = "Last Resort"
"""A font, which newer releases of matplotlib bring, with a box for every letter there is."""


def families_for(text: str) -> list[str]:
    """The families that matplotlib draws a text with."""
    other = _other(_lacking(text))
    return [USUAL] if other is None else [USUAL, other.name]


def font_for(text: str) -> str:
    """The file of a font for the whole of a text: DejaVu's, if it has the letters."""
    lacking = _lacking(text)
    other = _other(lacking)
    has_more = other is not None and len(_letters(other.fname) & _codes(text)) > len(_codes(text)) - len(lacking)
    return other.fname if other is not None and has_more else _usual()


@cache
def _usual() -> str:
    return str(font_manager.findfont(USUAL))


def _codes(text: str) -> set[int]:
    return {ord(letter) for letter in text if not letter.isspace()}


def _lacking(text: str) -> frozenset[int]:
    """The letters that DejaVu lacks."""
    return frozenset(_codes(text) - _usual_letters())


@cache
def _usual_letters() -> frozenset[int]:
    return _letters(_usual())


def _letters(file: str) -> frozenset[int]:
    """None of a font that cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _other(letters: frozenset[int]) -> font_manager.FontEntry | None:
    """The installed font with the most of these letters; a note on stderr says which letters none has."""
    if not letters:
        return None
    found, most = None, frozenset[int]()
    for entry in font_manager.fontManager.ttflist:
        if entry.name.startswith(PLACEHOLDERS):
            continue
        there = letters & _letters(entry.fname)
        if len(there) > len(most):
            found, most = entry, there
        if most == letters:
            return found
    shown = "".join(map(chr, sorted(letters - most)[:10]))
    notice(f"no installed font has {shown}; they are drawn as boxes: install one that has, such as Noto Sans CJK")
    return found
