"""How much memory is available, also in containers."""

import math
from pathlib import Path

import pytest

from socodet.runtime import limits

MACHINE = (
    "MemTotal:       65536000 kB\nMemFree:         1024000 kB\nMemAvailable:   32768000 kB\nHugePages_Total:       0\n"
)
FREE = 32_768_000 * 1024


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 32,768,000 kB available and its control groups in this folder."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(MACHINE)
    return tmp_path


def within(groups: Path, own: str, folder: str, **files: str) -> float:
    (groups / "own").write_text(own)
    for name, text in files.items():
        file = groups / "cgroup" / folder / f"memory.{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return limits.available_memory()


def test_without_control_groups_the_machines_memory_counts(groups: Path) -> None:
    assert limits.available_memory() == FREE
    for text in ("MemTotal: 1 kB\n", "what no kernel writes"):
        (groups / "meminfo").write_text(text)
        assert limits.available_memory() == math.inf
    (groups / "meminfo").unlink()
    assert limits.available_memory() == math.inf


def test_a_containers_memory_limit_is_respected(groups: Path) -> None:
    """Cached files are evicted when memory is needed; files in shared memory, `shmem`, are not."""
    stat = "anon 2500\nfile 1700\nshmem 500\ninactive_file 200\nactive_file 1000"
    now = within(groups, "0::/\n", "", max="10000", current="5000", stat=stat)
    assert now == 10_000 - 5_000 + 200 + 1_000
    assert within(groups, "0::/\n", "", max="max") == FREE
    assert within(groups, "0::/\n", "", max=str(2 * FREE)) == FREE
    assert within(groups, "0::/\n", "", max="3000") == 0  # lowered below current use


def test_the_lowest_limit_of_nested_groups_applies(groups: Path) -> None:
    own, stat = "0::/slice/job\n", "inactive_file 0\nactive_file 0"
    assert within(groups, own, "slice/job", max="max", current="10", stat=stat) == FREE
    assert within(groups, own, "slice", max="9000", current="8000", stat=stat) == 1_000
    assert within(groups, own, "other", max="10", current="0", stat=stat) == 1_000


@pytest.mark.parametrize("path", ["", "docker/0123/"])
def test_version_1_control_groups_are_read(groups: Path, path: str) -> None:
    own = "9:cpuset:/\n3:memory:/docker/0123\n0::/\n"
    stat = "inactive_file 1\nactive_file 1\ntotal_inactive_file 30\ntotal_active_file 40"
    at = f"memory/{path}"
    assert within(groups, own, at, limit_in_bytes="9223372036854771712", usage_in_bytes="500", stat=stat) == FREE
    assert within(groups, own, at, limit_in_bytes="2000") == 2_000 - 500 + 70
