"""Standard error that may be lost: a terminal that closes, a reader that ends or a full disk does not end the work."""

import io
import sys
from typing import Any


class _Lossy(io.FileIO):
    def write(self, data: Any) -> int:
        """Writes what can be written; the rest is lost."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def let_standard_error_be_lost() -> None:
    """What cannot be written to standard error from here on is lost, and no error. Only where it is the process's."""
    stream = sys.__stderr__
    if stream is None or sys.stderr is not stream:  # it has been replaced, as tests do
        return
    try:
        file = _Lossy(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # closed
        return
    buffered = io.BufferedWriter(file)  # type: ignore[type-var]  # a FileIO
    sys.stderr = io.TextIOWrapper(buffered, stream.encoding, errors="replace", line_buffering=True)
