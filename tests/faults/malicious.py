"""Helpers shared by the tests of untrusted files."""

from pathlib import Path

from socodet.errors import InputError
from socodet.images.photographs import photographs

PHOTOGRAPH = (photographs() / "chelsea.jpg").read_bytes()
SCRIPT = "<script src=http://evil.example/x.js>alert(1)</script>"


class Sentinel:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def one_line(call, *arguments):
    """The one line with which a call is refused; None if it is accepted, False if there are several lines."""
    try:
        call(*arguments)
    except InputError as error:
        return str(error).splitlines() == [str(error)] and str(error)
    return None


def refused(call, *arguments):
    """The one line with which a call is refused; fails the test if it is accepted."""
    line = one_line(call, *arguments)
    assert line
    return line
