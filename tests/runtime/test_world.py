"""Rank and world size from the environment variables of torchrun and SLURM."""

import os

import pytest

from socodet.errors import InputError
from socodet.runtime.world import ALONE, World, world_from_environment

ALLOCATION = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}
MEETING = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SLURM_")] + [*TORCHRUN, *MEETING, "LOCAL_WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)


def _world(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rendezvous: bool = True) -> World:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return world_from_environment(rendezvous)


def test_without_variables_there_is_one_process() -> None:
    assert world_from_environment() == World(0, 1, 0)


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _world(monkeypatch, TORCHRUN | MEETING) == World(2, 4, 0)
    assert _world(monkeypatch, STEP) == World(2, 4, 0)  # torchrun started by srun
    assert _world(monkeypatch, {"LOCAL_WORLD_SIZE": "2"}) == World(2, 4, 0, 2)


def test_sruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _world(monkeypatch, ALLOCATION | STEP, rendezvous=False) == World(5, 8, 1)
    with pytest.raises(InputError, match="MASTER_ADDR"):
        world_from_environment()
    assert _world(monkeypatch, MEETING) == World(5, 8, 1)


@pytest.mark.parametrize(
    "variables",
    [
        ALLOCATION,  # a command typed in an allocation, or in its batch script
        ALLOCATION | MEETING,
        ALLOCATION | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # `srun --pty bash`
        TORCHRUN,  # left over from something else: there is no address to meet at
        {"WORLD_SIZE": "4"} | MEETING,
    ],
)
def test_leftover_variables_without_a_launcher_mean_one_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    assert _world(monkeypatch, variables) == ALONE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("RANK", value) for value in ("", "first", "-1", "4", "1.5")),
        *(("WORLD_SIZE", value) for value in ("", "0", "four")),
        ("LOCAL_RANK", "x"),
        ("LOCAL_WORLD_SIZE", "0"),
        *(("MASTER_PORT", value) for value in ("", "http", "70000")),
    ],
)
def test_malformed_variables_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{name} "):
        _world(monkeypatch, TORCHRUN | MEETING | {name: value})


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"])
def test_malformed_variables_of_slurm_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(InputError, match=name):
        _world(monkeypatch, STEP | MEETING | {name: "none"})
