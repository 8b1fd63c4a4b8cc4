"""Names of runs, datasets and classes as text in Markdown: a viewer shows them as they are."""

import html
import re

_ACTIVE = re.compile(r"[\\`*~\[\]|]|(?<!\w)_|_(?!\w)")
_IN_TABLES = re.compile(r"[\\`*|<]")


def in_markdown(text: object) -> str:
    """On one line, with everything escaped that a viewer would take for Markdown or HTML."""
    return html.escape(_ACTIVE.sub(r"\\\g<0>", _one_line(text)), quote=False)


def in_table(text: object) -> str:
    """For a page that is also read on a terminal: only what would break a table or hide a name is escaped."""
    return _IN_TABLES.sub(r"\\\g<0>", _one_line(text))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
