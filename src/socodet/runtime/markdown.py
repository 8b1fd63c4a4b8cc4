"""Names of runs, sets and classes as text in Markdown: a viewer shows them as they are."""

import html
import re

_ACTIVE = re.compile(r"[\\`*~\[\]|]|(?<!\w)_|_(?!\w)")
_IN_TABLES = re.compile(r"[\\`*|<]")


def in_markdown(text: object) -> str:
    """In one line, and without what a viewer would take for Markdown or HTML."""
    return html.escape(_ACTIVE.sub(r"\\\g<0>", _one_line(text)), quote=False)


def in_table(text: object) -> str:
    """In a page that is read on a terminal too: only what would change a table or hide a name is masked."""
    return _IN_TABLES.sub(r"\\\g<0>", _one_line(text))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
