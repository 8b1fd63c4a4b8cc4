"""Errors that a user can fix: one line that says what is wrong, where, and what to do."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the file or field, what is wrong with it, and how to fix it.
    The command line prints it and exits with code 2; from Python it is an ordinary exception.
    """


class SettingError(InputError, ValueError):
    """A field of some settings has a value it cannot have: `field must be …, not …`."""


class UnreadableImageError(InputError):
    """The bytes are not an image that can be decoded: truncated, corrupt, or of an unknown format."""
