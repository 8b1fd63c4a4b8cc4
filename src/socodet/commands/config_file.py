"""Configuration files: their entries become flags placed before the typed ones, and `--print-config` writes a file."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from socodet.commands.flags import Flag, value_at
from socodet.commands.parsing import split_positional, values_of
from socodet.errors import InputError, suggest_names
from socodet.runtime.notices import notice

NOTHING = "None"
"""The word with which the parser leaves an optional value unset."""


def with_config(
    path: Path, argv: Sequence[str], flags: Sequence[Flag], old_names: Mapping[str, str] | None = None
) -> list[str]:
    """The command line with the settings of a YAML or TOML file added, except those that `argv` sets itself.

    A key is a flag without its dashes, or the name of a positional argument; nesting and dots are equivalent.
    old_names: as in `OLD_NAMES`. InputError names the file if it cannot be read, or has a key that is not a flag.
    """
    known = {_of_any_view(flag.name): flag for flag in flags}
    given: dict[str, Any] = {}
    for key, value in _flat(_read(path)):
        name = key.replace("_", "-")
        today = (old_names or {}).get(f"--{name}")
        if _of_any_view(name) not in known and today is not None:
            name = today.lstrip("-").lower()
            notice(f"note: {path}: {key} is now {name}")
        if _of_any_view(name) not in known:
            raise InputError(f"{path}: {key}: no such flag; {suggest_names(name, known, '--print-config shows all')}")
        if name in given:
            raise InputError(f"{path}: {key}: is set twice; keep one of them")
        given[name] = value
    positional, typed = split_positional(argv, flags)
    for flag in [flag for flag in flags if not flag.names][len(positional) :]:
        value = given.get(flag.name)
        positional += map(str, value) if isinstance(value, list) else [] if value is None else [str(value)]
    set_here = {word.partition("=")[0].replace("_", "-") for word in typed}
    words: list[str] = []
    for name, value in given.items():
        flag = known[_of_any_view(name)]
        if flag.names and not set_here & {f"--{name}", _off(name)}:
            words += _words(path, name, value, flag)
    return [*positional, *words, *typed]


@contextmanager
def name_config_file_in_errors(file: Path | None, typed: Sequence[str], argv: Sequence[str]) -> Iterator[None]:
    """Within this context, an error about a value from a configuration file names the file."""
    try:
        yield
    except InputError as error:
        found = re.search(r"(--[\w.-]*\w)|: ([\w.]+) must", str(error))
        flag = "" if found is None else found[1] or f"--{found[2].replace('_', '-')}"
        if file is None or values_of(flag, typed) or not values_of(flag, argv):
            raise
        raise InputError(f"{file}: {error}") from None


def as_yaml(command: str, flags: Sequence[Flag], arguments: dict[str, Any]) -> str:
    """A configuration file with the value of every flag; scalars and lists are written as JSON, which is valid YAML."""
    values = [f"{flag.name}: {_in_yaml(value_at(flag.path, arguments))}" for flag in flags]
    return "\n".join([f"# socodet {command} --config FILE", *values])


def _in_yaml(value: object) -> str:
    """JSON, except for characters that JSON writes as two escapes: YAML would read each escape as a character."""

    def joined(pair: re.Match[str]) -> str:
        character = json.loads(f'"{pair[2]}"')
        return f"{pair[1]}\\U{ord(character):08x}"

    pairs = r"(?<!\\)((?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})"
    return re.sub(pairs, joined, json.dumps(value, default=str))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8").removeprefix("\ufeff")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in (".yaml", ".yml", ".json"):
            content = _read_json(path, text) if path.suffix == ".json" else _read_yaml(path, text)
            if isinstance(content, dict | None):
                return content or {}
            raise ValueError("it holds no keys with values, such as `epochs: 50`")
    except (OSError, UnicodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); give a YAML or TOML file") from None
    raise InputError(f"{path}: is neither .yaml nor .toml; give one of these")


def _read_json(path: Path, text: str) -> Any:
    """Reads JSON with a JSON parser: YAML forbids tabs, and reads a character written as two escapes as two."""

    def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            _refuse_second(path, key, found)
            found[key] = value
        return found

    return json.loads(text, object_pairs_hook=only_once, parse_float=str, parse_int=str, parse_constant=str)


def _read_yaml(path: Path, text: str) -> Any:
    _refuse_aliases(path, text)
    return _plain(path, yaml.compose(text, yaml.SafeLoader))


def _refuse_second(path: Path, key: str, found: Mapping[str, Any]) -> None:
    if key in found:
        raise InputError(f"{path}: {key}: is set twice; keep one of them")


def _refuse_aliases(path: Path, text: str) -> None:
    """InputError for aliases, because a few lines of nested aliases can expand to millions of values."""
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path}: *{event.anchor} is an alias; write the value itself there")


def _plain(path: Path, node: Any) -> Any:
    """A YAML node with its scalars as written, so that a name such as `no` is not read as false."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, one) for one in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise InputError(f"{path}: line {line}: a key is a list or a map; write the name of a flag")
            _refuse_second(path, key.value, found)
            found[key.value] = _plain(path, value)
        return found
    return None if node is None or node.tag.endswith(":null") else node.value


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with their values; keys of nested tables and of lists of tables are joined by dots."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{above}.{key}" if above else str(key))
    else:
        yield above, value


def _of_any_view(name: str) -> str:
    return ".".join("N" if part.isdigit() else part for part in name.split("."))


def _off(name: str) -> str:
    """The negated flag: `--no-resume`, `--evaluation.no-save-predictions`."""
    above, dot, last = name.rpartition(".")
    return f"--{above}{dot}no-{last}"


def _words(path: Path, name: str, value: Any, flag: Flag) -> list[str]:
    """A key and its value as words of the command line."""
    if flag.values == 0:
        text = str(value).lower()
        if text not in ("true", "false"):
            raise InputError(f"{path}: {name}: must be true or false, not {value}")
        return [f"--{name}"] if text == "true" else [_off(name)]
    if isinstance(value, list):
        words = [str(one) for one in value]
        if flag.repeated:
            return [f"--{name}={word}" for word in words]
        return [f"--{name}", *words] if words or flag.default else []
    if value is None and flag.default is None and len(flag.path) == 1:
        return []
    return [f"--{name}={NOTHING if value is None else value}"]
