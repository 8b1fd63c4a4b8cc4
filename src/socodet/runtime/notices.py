"""What a user should know about the input, said where it is found out."""

import os
import sys
from functools import cache


@cache
def notice(text: str) -> None:
    """Prints a line on stderr: once in a process, and only in the first of several processes."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text that may hold names of files, on one line whatever is in them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
