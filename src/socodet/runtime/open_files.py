"""How many files a process may have open."""

import contextlib

ENOUGH = 65_536


def raise_open_files() -> None:
    """Raises the soft limit, 1,024 on most systems, as far as the hard one allows, to `ENOUGH` at most."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
