"""What `--help` prints: the everyday flags on one screen; `--help-all` prints all flags in groups."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from socodet.commands.flags import MOST_CHOICES, Flag

GROUPS = {
    "data": ("data", "reading", "pixels", "proposals", "limit", "images", "table", "split"),
    "training": ("training", "settings", "budget", "finetune", "evaluation"),
    "settings": (),
    "views": ("sample",),
    "model": ("model", "objective"),
    "execution": ("execution", "device", "workers"),
}
"""Groups of flags, and the command parameters that belong to them; all others are in `advanced`. In a command that does
not train, `training` is called `settings`."""
RECIPE = ("sample", "model", "objective", "training", "proposals")
"""Parameters whose defaults come from a recipe if the command has --recipe."""
INDENT = 26


def help_of(function: Callable[..., Any], name: str, flags: Sequence[Flag], everyday: Sequence[str], full: bool) -> str:
    """The help of a command. everyday: names of the flags to show first; if empty, all parameters without fields."""
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    recipe = next((flag.default for flag in flags if flag.path == ("recipe",)), None)
    first = [flag for flag in flags if (flag.name in everyday if everyday else len(flag.path) == 1) or flag.required]
    others = _of_any_view([flag for flag in flags if flag not in first])
    needed = [flag.shown if flag.required else f"[{flag.shown}]" for flag in first if flag.required or not flag.names]
    description, *more = inspect.getdoc(function).split("\nArgs:")[0].strip().split("\n\n")  # type: ignore[union-attr]
    lines = textwrap.wrap(
        f"usage: {' '.join(['socodet', name, *needed, '[...]'])}",
        width,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )
    for paragraph in (description, *(more if full else more[:1])):
        lines += ["", *textwrap.wrap(paragraph, width, break_on_hyphens=False)]
    place = {name: index for index, name in enumerate(everyday)}
    trains = any(flag.path[0] == "execution" for flag in flags)
    groups = {"": sorted(first, key=lambda flag: (bool(flag.names), not flag.required, place.get(flag.name, 0)))}
    for flag in others if full else ():
        group = next((group for group, names in GROUPS.items() if flag.path[0] in names), "advanced")
        groups.setdefault("settings" if group == "training" and not trains else group, []).append(flag)
    order = ["", *GROUPS, "advanced"]
    for title in sorted(groups, key=order.index):
        of_recipe = recipe is not None and {flag.path[0] for flag in groups[title]} & set(RECIPE)
        note = " (the recipe sets what you do not)" if of_recipe else ""
        lines += ["", *([f"{title}{note}:"] if title else [])]
        for flag in groups[title]:
            lines += _entry(flag if full else _brief(flag), _default(flag, recipe), width)
    if others and not full:
        lines += ["", f"{len(others)} more flags: socodet {name} --help-all"]
    return "\n".join(lines)


def _of_any_view(flags: Sequence[Flag]) -> list[Flag]:
    """Merges flags that exist for each view into one with N as the view's index; its default lists all defaults."""
    one_of_each: dict[str, list[Flag]] = {}
    for flag in flags:
        one_of_each.setdefault(re.sub(r"\.\d+\.", ".N.", flag.name), []).append(flag)
    merged = []
    for name, same in one_of_each.items():
        values = [_text(flag.default) for flag in same]
        default = same[0].default if len(set(values)) == 1 else ", ".join(values)
        merged.append(same[0] if len(same) == 1 else replace(same[0], names=(f"--{name}",), default=default))
    return merged


def _brief(flag: Flag) -> Flag:
    """The flag with only the first sentence of its description, and only the first of many choices."""
    names = (*flag.choices[:MOST_CHOICES], "and others") if len(flag.choices) > MOST_CHOICES else flag.choices
    return replace(flag, help=re.split(r"(?<=\w[.)]) (?=[A-Z])", flag.help)[0], choices=names)


def _entry(flag: Flag, default: str, width: int) -> list[str]:
    invocation = f"  {flag.shown}"
    about = flag.help
    if flag.choices and flag.metavar not in flag.shown:
        about += f" One of {', '.join(name for name in flag.choices if name != 'None')}."
    text = textwrap.wrap(f"{about} {default}".strip(), width - INDENT, break_on_hyphens=False) or [""]
    if len(invocation) > INDENT - 2:
        return [invocation, *(" " * INDENT + line for line in text)]
    return [f"{invocation:<{INDENT}}{text[0]}", *(" " * INDENT + line for line in text[1:])]


def _default(flag: Flag, recipe: Any) -> str:
    text = _text(flag.default)
    if flag.required or not text or isinstance(flag.default, bool):
        return ""
    if recipe is None or flag.path[0] not in RECIPE:
        return f"[{text}]"
    return "" if recipe == "auto" else f"[{recipe}: {text}]"


def _text(value: Any) -> str:
    """A default as it would be typed; empty for None and for an empty list."""
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
