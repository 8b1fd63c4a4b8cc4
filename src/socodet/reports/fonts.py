"""Fonts for names in any script: DejaVu, which comes with matplotlib, or an installed font for letters it lacks."""

from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from socodet.runtime.notices import notice

USUAL = "DejaVu Sans"
PLACEHOLDERS = "Last Resort"
"""A font in newer releases of matplotlib that draws every letter as a box."""


def families_for(text: str) -> list[str]:
    """The font families with which matplotlib draws a text."""
    other = _other(_missing_letters(text))
    return [USUAL] if other is None else [USUAL, other.name]


def font_for(text: str) -> str:
    """The file of a single font for a whole text: DejaVu's, unless another font has more of the letters."""
    lacking = _missing_letters(text)
    other = _other(lacking)
    has_more = other is not None and len(_letters(other.fname) & _codes(text)) > len(_codes(text)) - len(lacking)
    return other.fname if other is not None and has_more else _usual()


@cache
def _usual() -> str:
    return str(font_manager.findfont(USUAL))


def _codes(text: str) -> set[int]:
    return {ord(letter) for letter in text if not letter.isspace()}


def _missing_letters(text: str) -> frozenset[int]:
    """The letters that DejaVu lacks."""
    return frozenset(_codes(text) - _usual_letters())


@cache
def _usual_letters() -> frozenset[int]:
    return _letters(_usual())


def _letters(file: str) -> frozenset[int]:
    """The letters of a font; empty if it cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _other(letters: frozenset[int]) -> font_manager.FontEntry | None:
    """The installed font with most of these letters; prints a note about letters that it lacks."""
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
    notice(f"{shown}: drawn as boxes, since no font has them; install one that has them, such as Noto Sans CJK")
    return found
