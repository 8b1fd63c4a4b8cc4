"""Who we are among several processes, as torchrun and SLURM say it."""

import pytest

from socodet.errors import InputError
from socodet.runtime.world import World, world_from_environment

VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "MASTER_ADDR"),
)


def test_where_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert world_from_environment() == World(0, 1, 0)
    for name, value in (("SLURM_NTASKS", "8"), ("SLURM_PROCID", "5"), ("SLURM_LOCALID", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="MASTER_ADDR"):
        world_from_environment()
    assert world_from_environment(meeting=False) == World(5, 8, 1)
    monkeypatch.setenv("MASTER_ADDR", "node0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert world_from_environment() == World(5, 8, 1)
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert world_from_environment() == World(2, 4, 0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert world_from_environment() == World(2, 4, 0, 2)
