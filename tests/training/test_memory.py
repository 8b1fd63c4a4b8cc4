import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource
import numpy as np
from socodet.training.devices import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.empty(64 << 20, np.uint8) for _ in range(36)]  # more than 2 GiB
    for block in blocks:
        block.fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = pages()
assert keep_freed_memory()
pages()
print(given_back, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc's malloc")
def test_freed_memory_is_used_again_without_the_system():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 20
