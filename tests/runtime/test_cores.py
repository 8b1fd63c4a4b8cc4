"""The number of usable cores, also in containers."""

import os
from pathlib import Path

import pytest

from socodet.runtime import limits


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 cores and its control groups in this folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def within(groups: Path, own: str, **files: str) -> int:
    (groups / "own").write_text(own)
    for name, text in files.items():
        file = groups / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return limits.available_cores()


def test_without_control_groups_all_cores_are_used(groups: Path) -> None:
    assert limits.available_cores() == 64
    assert within(groups, "0::/\n") == 64
    assert within(groups, "not what the kernel writes") == 64


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("400000 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("12800000 100000", 64)],
)
def test_a_containers_limit_is_respected(groups: Path, limit: str, expected: int) -> None:
    """As set by `docker run --cpus 4`, `1.5`, `0.5`, no limit, and more than there are."""
    assert within(groups, "0::/\n", **{"cpu.max": limit}) == expected


def test_the_lowest_limit_of_nested_groups_applies(groups: Path) -> None:
    own = "0::/user.slice/job/step\n"
    assert within(groups, own, **{"user.slice/job/step/cpu.max": "max 100000"}) == 64
    assert within(groups, own, **{"user.slice/job/cpu.max": "300000 100000"}) == 3
    assert within(groups, own, **{"other/cpu.max": "100000 100000"}) == 3


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("path", ["", "docker/0123/"])
def test_version_1_control_groups_are_read(groups: Path, controllers: str, path: str) -> None:
    """The path is the host's and may not exist in the container."""
    own = f"9:cpuset:/\n3:{controllers}:/docker/0123\n0::/\n"
    at = f"{controllers}/{path}cpu.cfs_"
    assert within(groups, own, **{f"{at}quota_us": "-1", f"{at}period_us": "100000"}) == 64
    assert within(groups, own, **{f"{at}quota_us": "500000"}) == 5


def test_torch_gets_as_many_threads_as_the_containers_limit(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    within(groups, "0::/\n", **{"cpu.max": "400000 100000"})
    limits.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"  # as set by the user or a launcher
    monkeypatch.delenv("OMP_NUM_THREADS")
    limits.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    monkeypatch.delenv("OMP_NUM_THREADS")
    within(groups, "0::/\n", **{"cpu.max": "max 100000"})
    limits.limit_threads()
    assert "OMP_NUM_THREADS" not in os.environ
