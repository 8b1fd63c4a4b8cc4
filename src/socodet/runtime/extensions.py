"""The user's own classes and functions, from outside the package: `module:name` in a setting.

Settings are also read from files, such as a stranger's run.json, so a name by itself imports nothing. It is found if
the user typed its module on this command line, in a flag's value or after --import, or gave the object to `register`.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from socodet.errors import InputError, SettingError, suggest_names
from socodet.runtime.counted import counted

T = TypeVar("T")
_NAME = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):[^\W\d]\w*")
_REGISTERED: dict[str, Any] = {}
_TYPED: set[str] = set()


class _Form:
    """In an annotation, the form of the text that it accepts."""

    def __contains__(self, value: str) -> bool:
        return is_extension(value)

    def __repr__(self) -> str:
        return "module:name"


Extension = Annotated[str, _Form()]
"""The type of a setting that names the user's own class or function."""


def is_extension(name: str) -> bool:
    """Whether a setting names the user's own class or function: `module:name`."""
    return _NAME.fullmatch(name) is not None


def register(own: Any) -> str:
    """Registers a class or function of yours, and returns its name for settings, which is stored in the run's folder.

        socodet.recipe("tiny").with_(loss=socodet.register(MyLoss))

    The name is `module:name`; a script's module is the name of its file. A program that reads the run later must
    register it too; a command needs --import MODULE. Of two objects with the same name, the last counts. SettingError
    for an object without a name, such as a lambda.
    """
    name = f"{_module_of(own)}:{getattr(own, '__name__', '')}"
    if not is_extension(name):
        what = getattr(own, "__name__", None) or f"an object of the class {type(own).__name__}"
        raise SettingError(f"{what} has no name to find it by; register a class, or a function made with def")
    _REGISTERED[name] = own
    return name


def trust(modules: Sequence[str], words: Sequence[str]) -> None:
    """From now on, settings may name what is in `modules`, or in the modules that `words` names.

    `words` is a command line as typed: `--loss=my_losses:Margin`, also without `=`, names my_losses. The working
    directory is searched too, last. SettingError if one of `modules` cannot be imported.
    """
    typed = (_NAME.fullmatch(word.rpartition("=")[2]) for word in words)
    _TYPED.clear()
    _TYPED.update(modules, (found[1] for found in typed if found))
    if _TYPED and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in modules:
        _imported(module)


def check_trusted(value: object) -> None:
    """SettingError if a setting names something that is missing in a module that `trust` was given."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str) and is_extension(one) and one.partition(":")[0] in _TYPED:
            find(one)


def find(name: str) -> Any:
    """The user's object of that name. SettingError if its module was not typed, cannot be imported, or lacks it."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    module, _, attribute = name.partition(":")
    if module not in _TYPED:
        raise SettingError(
            f"{name}: is code outside the package, which a setting in a file does not run; if you trust it, add "
            f"--import {module}, or in Python call socodet.register({attribute})"
        )
    found = _imported(module)
    if not hasattr(found, attribute):
        own = [one for one, there in vars(found).items() if getattr(there, "__module__", None) == module]
        raise SettingError(f"{name}: {module} has no {attribute}; {suggest_names(attribute, own or ['another name'])}")
    return getattr(found, attribute)


def resolve_extension(name: str, what: type[T], *given: Any) -> T:
    """The user's object of that name if it is a `what`, else what it returns when it is called with `given`."""
    found = find(name)
    made_already = isinstance(found, what) and not isinstance(found, type)
    try:
        result = found if made_already or not callable(found) else found(*given)
    except InputError:
        raise
    except Exception as error:  # whatever the user's class or function raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        called = f"with {counted(len(given), 'argument')}"
        raise SettingError(f"{name}: fails when it is called {called} ({why}); correct it") from error
    if not isinstance(result, what):
        wrong = f"an object of the class {type(result).__name__}"
        raise SettingError(f"{name}: returns {wrong}; it must return one of the class {what.__name__}")
    return result


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        raise SettingError(
            f"{module}: cannot be imported ({type(error).__name__}: {error}); run the command in the folder of "
            f"{module.partition('.')[0]}, and see --debug"
        ) from error


def _module_of(own: Any) -> str:
    """The module of an object; that of a script is its file's name, under which it can be imported."""
    module = str(getattr(own, "__module__", ""))
    main = sys.modules.get("__main__")
    if module != "__main__":
        return module
    spec, file = getattr(main, "__spec__", None), Path(getattr(main, "__file__", None) or "")
    return spec.name if spec else file.stem if file.stem.isidentifier() else module
