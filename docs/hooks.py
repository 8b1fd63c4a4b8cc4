"""Hooks of `mkdocs`: add every command's help and every public function to pages, and rewrite links out of docs/."""

import contextlib
import inspect
import io
import re
from typing import Any

import socodet
from socodet.cli import COMMANDS, main

COMMANDS_HERE, FUNCTIONS_HERE = "<!-- every command -->", "<!-- every function -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The Markdown of a page before it is rendered."""
    if COMMANDS_HERE in markdown:
        markdown = markdown.replace(COMMANDS_HERE, "\n\n".join(map(_command, COMMANDS)))
    if FUNCTIONS_HERE in markdown:
        names = [name for name in socodet.__all__ if not name.startswith("_")]
        places = sorted((name[0].isupper(), name, _place(name)) for name in names)
        markdown = markdown.replace(FUNCTIONS_HERE, "\n\n".join(f"::: {place}" for _, _, place in places))
    return re.sub(r"\[([^\]]+)\]\(\s*\.\./(?:\.\./)?((?:benchmarks|src|examples)/[^)\s]*)\s*\)", r"\1 (`\2`)", markdown)


def _command(name: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*name.split(), "--help-all"])
    return f"## socodet {name}\n\n```text\n{printed.getvalue().strip()}\n```"


def _place(name: str) -> str:
    """Where an object is defined."""
    found = inspect.unwrap(getattr(socodet, name))
    return f"{found.__module__}.{found.__qualname__}"
