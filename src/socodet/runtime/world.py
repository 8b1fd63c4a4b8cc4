"""Which of several processes this is. torchrun or SLURM starts them; without either there is one."""

import os
from dataclasses import dataclass

from socodet.errors import InputError


@dataclass(frozen=True)
class World:
    """Which of all processes one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes that torchrun started on this machine; 1 under SLURM, which gives each task cores of its own."""

    @property
    def is_first(self) -> bool:
        """The process that writes files and speaks to the user."""
        return self.rank == 0


ALONE = World()


def world_from_environment(meeting: bool = True) -> World:
    """Where torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or SLURM (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID) put us.

    `meeting`: the processes will exchange tensors. InputError under SLURM when MASTER_ADDR and MASTER_PORT, where
    they meet, are then not set.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return World(
            int(env["RANK"]),
            int(env["WORLD_SIZE"]),
            int(env.get("LOCAL_RANK", 0)),
            int(env.get("LOCAL_WORLD_SIZE", 1)),
        )
    if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        if meeting and ("MASTER_ADDR" not in env or "MASTER_PORT" not in env):
            raise InputError(
                "SLURM: MASTER_ADDR and MASTER_PORT are not set; before srun, export MASTER_PORT=29500 and "
                "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)"
            )
        return World(int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), int(env.get("SLURM_LOCALID", 0)))
    return World()
