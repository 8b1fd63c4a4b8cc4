import html
import re

import pytest

from socodet.runtime.markdown import in_markdown, in_table

NAMES = [
    "<b>bold</b>",
    "a|b",
    "=cmd",
    "a\nb",
    "*star*",
    "`tick`",
    "back\\slash",
    "__init__",
    "[x](y)",
    "~~no~~",
    "a & b",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_verbatim(name):
    """Unescaped by CommonMark's rules, the text is the name on one line, and nothing in it is active."""
    shown = in_markdown(name)
    assert html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown)) == " ".join(name.split())
    assert not re.search(r"(?<!\\)(?:\\\\)*[*`|<\[\]~]", shown)
    cell = in_table(name)
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell) == " ".join(name.split())
    assert not re.search(r"(?<!\\)(?:\\\\)*[*`|<]", cell)


@pytest.mark.parametrize("name", ["fpn_100ep", "12.30 ± 0.45", "+1.20 [0.35, 2.05]", "traffic light", "日本"])
def test_ordinary_cells_are_unchanged(name):
    assert in_table(name) == name


def test_ordinary_names_are_unchanged():
    assert in_markdown("resnet50 fpn_100ep 日本") == "resnet50 fpn_100ep 日本"
