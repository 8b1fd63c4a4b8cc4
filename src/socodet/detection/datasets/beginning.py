"""The beginning of a file, by which its format is recognised without reading all of it."""

import re
from pathlib import Path

from socodet.runtime.files import open_file

SIZE = 2**16
"""Number of bytes that are read."""


def beginning_of(file: Path) -> bytes:
    """The first bytes of a file, without byte order mark and the zeros of UTF-16; empty if it cannot be read."""
    try:
        with open_file(file) as stream:
            return re.sub(rb"\A(\xef\xbb\xbf|\xff\xfe|\xfe\xff)|\0", b"", stream.read(SIZE))
    except OSError:
        return b""
