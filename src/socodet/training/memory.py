"""Memory allocation when training on a CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next step instead of returning it; says whether that is possible.

    Each step allocates the same feature maps. Memory returned to the system comes back as pages that must be mapped and
    zeroed, several percent of a step's time. The process then keeps its peak memory until it ends, and so do data
    workers forked from it.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # another C library
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
