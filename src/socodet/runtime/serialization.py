"""Settings to JSON and back: nested dataclasses, tuples, choices and numbers, by cattrs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_origin

from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from socodet.errors import InputError, SettingError
from socodet.runtime.settings import is_scalar, problem

T = TypeVar("T")

_CONVERTER = Converter(unstruct_collection_overrides={tuple: list})


def to_json(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON types: dicts, lists, text, numbers, true, false and null."""
    fields: dict[str, Any] = _CONVERTER.unstructure(settings)
    return fields


def from_json(cls: type[T], data: object, where: str) -> T:
    """The dataclass whose fields `to_json` wrote; a field that is missing takes its default.

    InputError names the first field that is unknown, missing without a default, or of another type. `where` says what
    holds them, such as a file.
    """
    try:
        return _CONVERTER.structure(data, cls)
    except (BaseValidationError, SettingError) as error:
        raise InputError(f"{where}: {_problem(error, '')}; restore it or make it again with this version") from None


def with_defaults(cls: type[Any], data: Any) -> Any:
    """What `to_json` wrote, with the defaults of newer fields; unchanged if this version cannot read it."""
    try:
        return to_json(_CONVERTER.structure(data, cls))
    except (BaseValidationError, SettingError):
        return data


def values_with_defaults(classes: Mapping[str, type[Any]], data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the values under the names of `classes` as `with_defaults` returns them."""
    return {key: with_defaults(classes[key], value) if key in classes else value for key, value in data.items()}


def _problem(error: Exception, path: str) -> str:
    """The first thing wrong, with the path to its field."""
    field = f"field {path}" if path else "it"
    if isinstance(error, ForbiddenExtraKeysError):
        return f"field {_below(path, min(error.extra_fields))} is unknown"
    if isinstance(error, BaseValidationError):
        noted, bare = error.group_exceptions()  # type: ignore[attr-defined]
        for inner, note in noted:
            return _problem(inner, _below(path, getattr(note, "name", getattr(note, "index", ""))))
        if isinstance(bare[0], SettingError):  # of the class as a whole: begins with the field's name
            return f"field {_below(path, str(bare[0]))}"
        return _problem(bare[0], path)
    if isinstance(error, KeyError):
        return f"{field} is missing"
    return f"{field} {error}" if isinstance(error, SettingError) else f"{field} cannot be read ({error})"


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _scalar(value: object, hint: Any) -> Any:
    wrong = problem("", value, hint)
    if wrong:
        raise SettingError(wrong.strip())
    return value


def _fields(cls: Any) -> Callable[[object, Any], Any]:
    from_dict = make_dict_structure_fn(cls, _CONVERTER, _cattrs_forbid_extra_keys=True)

    def structure(value: object, hint: Any) -> Any:
        if not isinstance(value, dict):
            raise SettingError(f"must be an object with the fields of {cls.__name__}, not {value!r}")
        return from_dict(value, hint)

    return structure


def _is_tuple(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is tuple


def _tuple(hint: Any) -> Callable[[object, Any], Any]:
    one_kind = hint.__args__[-1] is ...
    inner: Any = list.__class_getitem__(hint.__args__[0]) if one_kind else hint
    items = _CONVERTER.get_structure_hook(inner) if one_kind else _CONVERTER.gen_structure_hetero_tuple(hint)

    def structure(value: object, hint: Any) -> Any:
        if not isinstance(value, list) or not (one_kind or len(value) == len(hint.__args__)):
            raise SettingError(f"must be a list{'' if one_kind else f' of {len(hint.__args__)}'}, not {value!r}")
        return tuple(items(value, inner))

    return structure


for scalar in (int, float, bool, str):
    _CONVERTER.register_structure_hook(scalar, _scalar)
_CONVERTER.register_structure_hook_func(is_scalar, _scalar)
_CONVERTER.register_structure_hook_factory(dataclasses.is_dataclass, _fields)
_CONVERTER.register_structure_hook_factory(_is_tuple, _tuple)
