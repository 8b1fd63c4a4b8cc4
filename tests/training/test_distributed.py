"""Two processes with half the batch each are one process with the whole batch."""

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from socodet.models.encoders import build_encoder
from socodet.models.objective import build_objective
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.models.soco import SoCo
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.runtime.world import World
from socodet.training.distributed import SyncedBatchNorm, agree, join, mean_over_all
from socodet.views.batch import Batch, ViewBatch, group_by_level

SMALL = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)
STEPS, IMAGES, BOXES = 5, 8, 2


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def a_batch(step: int, part: list[int]) -> Batch:
    """Some images of a step's batch of eight. Only image 0 has a box on P2, only image 7 one on P5."""
    generator = torch.Generator().manual_seed(step)
    views = []
    for size in (48, 48, 32):
        pixels = torch.randint(0, 256, (IMAGES, 3, size, size), generator=generator, dtype=torch.uint8)
        corner = torch.rand(IMAGES, BOXES, 2, generator=generator) * size / 3
        boxes = torch.cat([corner, corner + size / 2], dim=-1)
        levels = torch.tensor([[0, 1], [1, 2], [1, 1], [1, 2], [2, 1], [1, 1], [2, 2], [1, 3]])
        boxes = boxes.double()
        rois = group_by_level(boxes[part], levels[part])
        views.append(ViewBatch(pixels[part], rois, boxes[part], levels[part]))
    return Batch(tuple(views), torch.zeros(len(part), 3, 4), torch.tensor(part))


def share(world: World, accumulate: int) -> list[int]:
    """A process's images: its share of each part of the batch."""
    parts = torch.arange(IMAGES).view(accumulate, world.size, -1)
    return parts[:, world.rank].flatten().tolist()


OBJECTIVES = (
    (1, ObjectiveSettings()),
    (2, ObjectiveSettings()),
    (1, ObjectiveSettings(variance_weight=4, covariance_weight=0.2)),
    (1, ObjectiveSettings(loss="infonce")),
)
"""Micro-batches and the objective of each run that is compared."""


def train(world: World, accumulate: int, objective: ObjectiveSettings) -> tuple[list[float], dict[str, torch.Tensor]]:
    import socodet.models.soco as module
    from socodet.models.normalization import normalize

    module.normalize = lambda pixels: normalize(pixels, torch.float64)
    torch.manual_seed(0)
    settings = TrainingSettings(
        epochs=5, warmup_epochs=1, batch_size=IMAGES, accumulate=accumulate, base_lr=150, target_momentum=0.9
    )
    soco = SoCo(build_encoder(SMALL), SMALL, build_objective(objective)).double()
    trainer = Trainer(soco, settings, IMAGES, world=world)
    losses = []
    for step in range(STEPS):
        batch, decisions = agree(world, a_batch(step, share(world, accumulate)), (world.rank == 1,))
        assert decisions == (world.size == 2,)
        loss, _ = trainer.step(batch)
        losses.append(float(mean_over_all(world, loss)))
    return losses, trainer.soco.state_dict()


def in_process(rank: int, port: str, path: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    world = World(rank, 2, rank)
    join(world, torch.device("cpu"))
    torch.save([train(world, *case) for case in OBJECTIVES], f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path, monkeypatch):
    mp.spawn(in_process, args=(free_port(), str(tmp_path)), nprocs=2)
    import socodet.models.soco as module

    monkeypatch.setattr(module, "normalize", module.normalize)  # undone after the test
    two = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.manual_seed(0)
    start = SoCo(build_encoder(SMALL), SMALL).state_dict()
    for which, case in enumerate(OBJECTIVES):
        losses, weights = train(World(), *case)
        assert any(not torch.equal(weights[name].float(), start[name]) for name in weights if name.endswith("weight"))
        for rank in (0, 1):
            theirs_losses, theirs = two[rank][which]
            assert theirs_losses == pytest.approx(losses, rel=1e-9, abs=1e-9)
            assert theirs.keys() == weights.keys()
            for name, value in weights.items():
                torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-9, msg=name)


def one_norm(rank: int, port: str, path: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    join(World(rank, 2, rank), torch.device("cpu"))
    x = torch.load(f"{path}/x.pt")[rank * 3 : rank * 3 + 3 + rank].requires_grad_()  # 3 and 4 rows: unequal shares
    norm = SyncedBatchNorm(5).double()
    y = norm(x)
    (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    grads = [x.grad, norm.weight.grad, norm.bias.grad]
    torch.save((y.detach(), grads, norm.running_mean, norm.running_var), f"{path}/norm{rank}.pt")
    torch.distributed.destroy_process_group()


def test_synced_batch_norm_is_batch_norm_of_all_rows(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(7, 5, 2, 3, dtype=torch.float64) * 3 + 1
    torch.save(x, tmp_path / "x.pt")
    mp.spawn(one_norm, args=(free_port(), str(tmp_path)), nprocs=2)
    norm = nn.BatchNorm2d(5).double()
    x.requires_grad_()
    y = norm(x)
    weights = torch.cat([torch.arange(n * 30).view(n, 5, 2, 3) for n in (3, 4)])
    (y * weights).sum().backward()
    parts = [torch.load(tmp_path / f"norm{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y)
    torch.testing.assert_close(torch.cat([p[1][0] for p in parts]), x.grad)
    torch.testing.assert_close(parts[0][1][1] + parts[1][1][1], norm.weight.grad)
    torch.testing.assert_close(parts[0][1][2] + parts[1][1][2], norm.bias.grad)
    for part in parts:
        torch.testing.assert_close(part[2], norm.running_mean)
        torch.testing.assert_close(part[3], norm.running_var)


def one_half_norm(rank: int, port: str, path: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    join(World(rank, 2, rank), torch.device("cpu"))
    for kind in (torch.float16, torch.bfloat16):
        norm = SyncedBatchNorm(2)
        y = norm(torch.load(f"{path}/x.pt")[rank * 4 : rank * 4 + 4].to(kind))
        torch.save((y.detach(), norm.running_mean, norm.running_var), f"{path}/{kind}{rank}.pt")
    torch.distributed.destroy_process_group()


def test_synced_batch_norm_in_half_precision_sums_in_float32(tmp_path):
    x = torch.randn(8, 2, 128, 128, generator=torch.Generator().manual_seed(0)) + 8  # 65,536 values of 2 processes
    torch.save(x, tmp_path / "x.pt")
    mp.spawn(one_half_norm, args=(free_port(), str(tmp_path)), nprocs=2)
    for kind in (torch.float16, torch.bfloat16):
        norm = nn.BatchNorm2d(2)
        y = norm(x.to(kind).float())
        parts = [torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True) for rank in (0, 1)]
        assert parts[0][0].dtype is kind
        # what is left is the rounding of the result itself, values up to 5
        torch.testing.assert_close(torch.cat([p[0] for p in parts]).float(), y, rtol=0, atol=5 * torch.finfo(kind).eps)
        for part in parts:
            torch.testing.assert_close(part[1], norm.running_mean)
            torch.testing.assert_close(part[2], norm.running_var, rtol=1e-4, atol=1e-4)


def test_torchrun_trains_one_run_and_goes_on(tmp_path):
    from socodet.images.photographs import photographs

    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    command += ["-m", "socodet", "pretrain", str(photographs()), "--output", str(run), "--recipe", "tiny"]
    command += ["--batch-size", "4", "--epochs", "1", "--warmup-epochs", "0", "--workers", "0", "--log-every", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run([*command, "--max-steps", "1"], capture_output=True, text=True, env=env)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("stopped by max_steps after 1 of 3 steps") == 1
    second = subprocess.run(command, capture_output=True, text=True, env=env)
    assert second.returncode == 0, second.stderr
    assert "finished, 3 steps" in second.stdout
    assert (run / "log.jsonl").read_text().count("\n") == 3
