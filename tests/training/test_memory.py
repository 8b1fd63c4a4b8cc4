import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource
import numpy as np
from socodet.training.devices import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.empty(64 << 20, np.uint8) for _ in range(36)]  # more than 2 GiB
    for block in blocks:
        block.fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = page_faults()
assert keep_freed_memory()
page_faults()
print(by_default, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc's malloc")
def test_freed_memory_is_reused_without_page_faults():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 20
