"""The machine that figures were measured on."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int]:
    """The processor, its cores and the Python version."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count() or 1, "python": platform.python_version()}
