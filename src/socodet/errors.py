"""Errors that a user can fix: one line that says what is wrong, where, and what to do."""

import difflib
import errno
import re
from collections.abc import Iterable

MOST_NAMED = 24
"""Maximum number of names that a message lists."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the file or field, what is wrong with it, and how to fix it.
    The command line prints it and exits with code 2; from Python it is an ordinary exception.
    """


class SettingError(InputError, ValueError):
    """A field of a settings object has an invalid value: `field must be …, not …`."""


class ArgumentError(InputError, TypeError):
    """A function was called with an unknown argument, or with an argument of the wrong type."""


class UnreadableImageError(InputError):
    """The bytes are not an image that can be decoded: truncated, corrupt, or of an unknown format."""


class TooManyPixelsError(UnreadableImageError):
    """An image has more pixels than the limit."""


def none_readable(images: str, first: tuple[str, str]) -> InputError:
    """The error for images none of which can be read, described as `FOLDER: none of its 60 images`.

    first: the name of the first one, and why it cannot be read.
    """
    return InputError(f"{images} can be read (first: {first[0]}: {first[1]}); check the files")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or a device ran out of memory, whatever the type of the error."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in _NO_MEMORY)
    return isinstance(error, MemoryError) or said


_NO_MEMORY = ("out of memory", "can't allocate memory", "annot allocate memory", "bad_alloc", "failed to map segment")
"""Substrings of out-of-memory messages of torch, CUDA, C++ and the dynamic linker."""


def suggest_names(name: str, known: Iterable[str], listed: str = "") -> str:
    """How to fix an unknown name: suggests the closest known names, or lists all if none is close.

    If there are too many to list, `listed` says where they can be found.
    """
    names = list(dict.fromkeys(known))
    likeness = {one: difflib.SequenceMatcher(None, name.lower(), one.lower()).ratio() for one in names}
    best = max(likeness.values(), default=0.0)
    close = [one for one in names if likeness[one] >= max(0.7, best - 0.05)]
    if not close:  # part of a name, such as lr for base_lr
        close = [one for one in names if name.lower().lstrip("-") in re.split(r"[^a-z0-9]+|_", one.lower())]
    if 0 < len(close) <= 4:
        return f"did you mean {' or '.join(close)}?"
    if len(names) <= MOST_NAMED:
        return f"choose one of {', '.join(names)}"
    nearest = sorted(names, key=lambda one: -likeness[one])[:3]
    return f"the closest of {len(names)} are {', '.join(nearest)}" + f"; {listed}" * bool(listed)
