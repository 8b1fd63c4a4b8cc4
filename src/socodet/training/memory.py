"""Memory of training on a CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Has glibc keep what this process frees for the next step, in place of giving it back; whether that is possible.

    A step allocates the same maps again and again. What goes back to the system comes again as pages that must each be
    mapped and zeroed, which is several percent of a step's time. The process then keeps its peak until it ends, and
    so do data workers forked from it.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # another C library
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
