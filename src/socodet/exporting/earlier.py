"""Removes what an earlier export onto the same file left beside it: its card, configs, and second file of weights.

They would describe, or be loaded with, weights that are no longer there. A card ends with a comment that records every
file of its export by its hash, and the card itself, so that only files that nobody has changed since are removed.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from socodet.runtime.notices import log_note

_RECORD = re.compile(rb"\n<!-- written by socodet export: (\{.*\}) -->\n")
_ITSELF = ""
"""The card's key in its own record."""


def with_record(card: Path, text: str, others: Mapping[Path, bytes]) -> bytes:
    """The card's bytes: its text, and the record of it and of the export's other files."""
    above = text.encode(errors="backslashreplace")
    digests = {path.relative_to(card.parent).as_posix(): _digest(data) for path, data in others.items()}
    # a name may hold what ends a comment
    record = json.dumps({_ITSELF: _digest(above), **digests}).replace(">", r"\u003e")
    return above + b"\n<!-- written by socodet export: " + record.encode() + b" -->\n"


def files_of_earlier(cards: Iterable[tuple[Path, Path]], output: Path, new: Collection[Path]) -> dict[Path, bool]:
    """What exports onto `output` left, apart from the files in `new`: path → whether it is as they wrote it.

    cards: the path that the card of each format would have, and the folder of its configs.
    """
    found: dict[Path, bool] = {}
    for card, folder in cards:
        data = card.read_bytes() if card.is_file() else b""
        digests = _recorded(data)
        if output.relative_to(card.parent).as_posix() not in digests:
            continue
        for name, digest in digests.items():
            path = card.parent / name if name else card
            if path in new or path.parent not in (card.parent, folder) or not path.is_file():
                continue
            holds = path.read_bytes() if name else _RECORD.sub(b"", data)
            found[path] = _digest(holds) == digest and not path.is_symlink()
    return found


def remove_unchanged(earlier: Mapping[Path, bool]) -> None:
    """Removes those of `files_of_earlier` that nobody changed, and folders that stay empty; names the others."""
    for path, unchanged in earlier.items():
        if not unchanged:
            log_note(f"note: {path}: is of an earlier export, not of this one; kept because it was changed")
            continue
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


def _recorded(data: bytes) -> dict[str, str]:
    """The hashes recorded in a card; empty if there are none."""
    match = _RECORD.search(data)
    with suppress(ValueError, RecursionError):
        noted = json.loads(match[1]) if match else None
        if isinstance(noted, dict) and all(isinstance(digest, str) for digest in noted.values()):
            return noted
    return {}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
