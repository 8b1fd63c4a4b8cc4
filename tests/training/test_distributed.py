"""Two processes, each with half the batch, match one process with the whole batch."""

import contextlib
import io
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from two_processes import in_processes, in_two_processes

import socodet.models.soco as soco_module
import socodet.pretraining.trainer as trainer_module
import socodet.training.learner as learner_module
import socodet.training.loop as loop_module
from socodet.cli import main
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.models.architectures import build_encoder
from socodet.models.fused_norm import FusedBatchNorm2d, SyncedBatchNorm
from socodet.models.normalization import normalize
from socodet.models.objective import build_objective
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.models.soco import SoCo
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.runtime.world import World, world_from_environment
from socodet.training import distributed
from socodet.training.distributed import (
    PREPARATION_TIMEOUT,
    TRAINING_TIMEOUT,
    agree,
    gather_to_first,
    join,
    mean_over_processes,
)
from socodet.views.batch import Batch, ViewBatch, group_by_level

pytestmark = pytest.mark.usefixtures("narrow_networks")
SMALL = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)
STEPS, IMAGES, BOXES = 5, 8, 2


def a_batch(step: int, part: list[int]) -> Batch:
    """Some images of a step's batch of eight. Only image 0 has a box on P2, and only image 7 on P5."""
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
    """A process's images: its share of each micro-batch."""
    parts = torch.arange(IMAGES).view(accumulate, world.size, -1)
    return parts[:, world.rank].flatten().tolist()


OBJECTIVES = (
    (1, ObjectiveSettings()),
    (2, ObjectiveSettings()),
    (1, ObjectiveSettings(variance_weight=4, covariance_weight=0.2)),
    (1, ObjectiveSettings(loss="infonce")),
)
"""The number of micro-batches and the objective of each run that is compared."""


def train(
    world: World, accumulate: int, objective: ObjectiveSettings, *, norm_group: int | None = None, steps: int = STEPS
) -> tuple[list[float], dict[str, torch.Tensor], list[float]]:
    """Losses, weights, and the embeddings' figures in the log."""
    soco_module.normalize = lambda pixels: normalize(pixels, torch.float64)
    torch.manual_seed(0)
    settings = TrainingSettings(
        epochs=5,
        warmup_epochs=1,
        batch_size=IMAGES,
        accumulate=accumulate,
        norm_group=norm_group,
        base_lr=150,
        target_momentum=0.9,
    )
    soco = SoCo(build_encoder(SMALL, FusedBatchNorm2d), SMALL, build_objective(objective)).double()
    trainer = Trainer(soco, settings, IMAGES, world=world)
    losses = []
    for step in range(steps):
        batch, decisions = agree(world, a_batch(step, share(world, accumulate)), (world.rank == 1,))
        assert decisions == (world.size > 1,)
        loss, _ = trainer.step(batch)
        losses.append(float(mean_over_processes(world, loss)))
    line = trainer.metrics(1.0, 0.0)
    return losses, trainer.soco.state_dict(), [line["embedding_std"], line["effective_rank"]]


NORMS = {
    "2d": (SyncedBatchNorm, (7, 5, 2, 3)),
    "1d": (SyncedBatchNorm, (7, 5)),
    "fused": (FusedBatchNorm2d, (7, 5, 2, 3)),
}
SHARES = ((3, 4), (0, 7))
"""How many of seven images each process has."""
HALF = (torch.float16, torch.bfloat16)


def normalized(kind: str, shares: tuple[int, int], rank: int) -> dict[str, torch.Tensor]:
    """A process's share of a normalised batch in float64, with gradients and running statistics."""
    norm_class, shape = NORMS[kind]
    norm = norm_class(shape[1]).double()
    norm.synchronized = True
    x, residual = (values[[slice(0, shares[0]), slice(shares[0], None)][rank]] for values in inputs(shape))
    return outputs(norm, x, residual if kind == "fused" else None, first=rank * shares[0])


def inputs(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1 for _ in range(2))


def outputs(norm: nn.Module, x: torch.Tensor, residual: torch.Tensor | None, first: int = 0) -> dict[str, torch.Tensor]:
    """relu(norm(x) + residual), or norm(x) if there is none. first: number of images in earlier processes."""
    x = x.clone().requires_grad_()
    if residual is None:
        y = norm(x)
    elif isinstance(norm, FusedBatchNorm2d):
        y = norm(x, residual, relu=True)
    else:
        y = torch.relu(norm(x) + residual)
    weights = torch.linspace(-1, 2, 7, dtype=y.dtype)[first : first + len(x)] ** 2
    (y.square() * weights.view(-1, *[1] * (x.ndim - 1))).sum().backward()
    return {
        "y": y.detach(),
        "x": x.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
    }


def statistics_of_empty_batch(kind: str) -> list[torch.Tensor]:
    """Statistics before and after an empty batch on all processes, for example of objects if no image has any."""
    norm_class, shape = NORMS[kind]
    norm = norm_class(shape[1])
    norm.synchronized = True
    norm(inputs(shape)[0].float())
    before = [norm.running_mean.clone(), norm.running_var.clone()]
    x = torch.empty(0, *shape[1:], requires_grad=True)
    norm(x).sum().backward()
    return [*before, norm.running_mean, norm.running_var, norm.weight.grad, norm.bias.grad]


def half_inputs() -> torch.Tensor:
    return torch.randn(8, 2, 128, 128, generator=torch.Generator().manual_seed(0)) + 8  # 65,536 values per process


def in_half_precision(rank: int) -> list[tuple[torch.Tensor, ...]]:
    found = []
    for kind in HALF:
        norm = SyncedBatchNorm(2)
        y = norm(half_inputs()[rank * 4 : rank * 4 + 4].to(kind))
        found.append((y.detach(), norm.running_mean, norm.running_var))
    return found


def pretrain(folder: Path, *arguments: str) -> str:
    """The output of `socodet pretrain` in this process."""
    command = ["pretrain", str(photographs()), "--output", str(folder / "run"), "--recipe", "tiny", "--device", "cpu"]
    command += ["--proposals.method", "grid"]
    command += ["--batch-size", "4", "--epochs", "1", "--warmup-epochs", "0", "--workers", "0", "--log-every", "1"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*command, *arguments])
    return printed.getvalue()


def refused(folder: Path, *arguments: str) -> str:
    """The error with which this process refuses to pretrain."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        pretrain(folder / "another", *arguments)
    assert ended.value.code == 2
    return errors.getvalue()


def current_timeout() -> timedelta:
    """How long this process currently waits for another."""
    group = torch.distributed.distributed_c10d._get_default_group()
    return group._get_backend(torch.device("cpu")).options._timeout


def in_process(rank: int, folder: Path) -> None:
    """Everything the two processes do in these tests, in one go: starting them takes longest."""
    pytest.MonkeyPatch().setattr(loop_module, "LISTED_AGAIN", (0.0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "replaced_images", lambda batch, places: {rank})
        printed = [pretrain(folder, "--max-steps", "1"), pretrain(folder)]
    world = world_from_environment()
    trained = current_timeout()
    join(world, torch.device("cpu"))
    found = {
        "printed": printed,
        "waits": [one.total_seconds() for one in (trained, current_timeout())],
        "refused": [refused(folder, *arguments[rank]) for arguments in DIFFERENT],
        "apart": [refused(folder / f"disk{rank}", *arguments) for arguments in ((), ("--proposals", "online"))],
        "nothing": [statistics_of_empty_batch(kind) for kind in NORMS],
        "norms": [[normalized(kind, shares, rank) for shares in SHARES] for kind in NORMS],
        "half": in_half_precision(rank),
        "training": [train(world, *case) for case in OBJECTIVES],
    }
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


DIFFERENT = ((("--limit", "5"), ("--limit", "6")), (("--log-every", "1"), ("--log-every", "2")))
"""The flags in which the processes differ."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("two_processes")


@pytest.fixture(scope="module")
def two(folder) -> list[dict]:
    """The results of the two processes."""
    in_two_processes(in_process, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("which", range(len(OBJECTIVES)))
def test_two_training_processes_match_one(two, which, monkeypatch):
    monkeypatch.setattr(soco_module, "normalize", soco_module.normalize)  # `train` replaces it
    torch.manual_seed(0)
    start = SoCo(build_encoder(SMALL), SMALL).state_dict()
    losses, weights, figures = train(World(), *OBJECTIVES[which])
    assert any(not torch.equal(weights[name].float(), start[name]) for name in weights if name.endswith("weight"))
    for process in two:
        theirs_losses, theirs, their_figures = process["training"][which]
        assert theirs_losses == pytest.approx(losses, rel=1e-9, abs=1e-9)
        assert their_figures == pytest.approx(figures, rel=1e-4)  # the figures cover the whole batch
        assert theirs.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-9, msg=name)


def in_groups(rank: int, folder: Path) -> None:
    """One of four processes, with batch norm over the first two and the last two, then over each alone."""
    world = world_from_environment()
    join(world, torch.device("cpu"))
    found = [train(world, 1, ObjectiveSettings(), norm_group=size, steps=2) for size in GROUPS]
    torch.save(found, folder / f"group{rank}.pt")
    torch.distributed.destroy_process_group()


GROUPS = (2, 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--norm-group", "3"], "3 does not divide .* 4"), (["--norm-group", "1", "--batch-size", "4"], "a single image")],
)
def test_impossible_norm_groups_are_refused_in_one_line(arguments, reason, tmp_path, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    command = ["pretrain", str(photographs()), "--output", str(tmp_path / "run"), "--recipe", "tiny", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main([*command, *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(reason, line)


def test_norm_groups_match_the_micro_batches_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(soco_module, "normalize", soco_module.normalize)  # `train` replaces it
    in_processes(4, in_groups, tmp_path)
    four = [torch.load(tmp_path / f"group{rank}.pt", weights_only=True) for rank in range(4)]
    for case, size in enumerate(GROUPS):
        # Images 0 to 3 and 4 to 7, or pairs of images, are normalised separately; gradients are averaged.
        losses, weights, _ = train(World(), 4 // size, ObjectiveSettings(), steps=2)
        for process in four:
            theirs_losses, theirs, _ = process[case]
            assert theirs_losses == pytest.approx(losses, rel=1e-9, abs=1e-9)
            for name, value in weights.items():
                if "running" not in name and "tracked" not in name:  # updated by each micro-batch
                    torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-9, msg=name)
        first, last = four[0][case][1], four[3][case][1]
        name = "online.encoder.backbone.body.bn1.running_mean"
        assert torch.equal(four[1][case][1][name], first[name]) == (size == 2)
        assert not torch.equal(last[name], first[name])


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("kind", NORMS)
def test_synchronised_batch_norm_is_batch_norm_over_all_images(two, kind, shares):
    shape = NORMS[kind][1]
    x, residual = inputs(shape)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1]).double()
    exact = outputs(norm, x, residual if kind == "fused" else None)
    parts = [process["norms"][list(NORMS).index(kind)][SHARES.index(shares)] for process in two]
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), exact[name], msg=name)
    for name in ("weight", "bias"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], exact[name], msg=name)
    for name in ("running_mean", "running_var"):
        for part in parts:
            torch.testing.assert_close(part[name], exact[name], msg=name)


@pytest.mark.parametrize("kind", HALF)
def test_synchronised_batch_norm_in_half_precision_sums_in_float32(two, kind):
    norm = nn.BatchNorm2d(2)
    y = norm(half_inputs().to(kind).float())
    parts = [process["half"][HALF.index(kind)] for process in two]
    assert parts[0][0].dtype is kind
    # the rest is the rounding of the result, whose values are up to 5
    torch.testing.assert_close(torch.cat([p[0] for p in parts]).float(), y, rtol=0, atol=5 * torch.finfo(kind).eps)
    for part in parts:
        torch.testing.assert_close(part[1], norm.running_mean)
        torch.testing.assert_close(part[2], norm.running_var, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", NORMS)
def test_empty_batch_leaves_the_statistics_unchanged(two, kind):
    for process in two:
        mean, var, mean_after, var_after, *gradients = process["nothing"][list(NORMS).index(kind)]
        assert torch.equal(mean_after, mean)
        assert torch.equal(var_after, var)
        assert not any(gradient.any() for gradient in gradients)


def test_processes_with_different_images_or_settings_are_all_refused(two):
    for process in two:
        for line, differs in zip(process["refused"], ("images", "settings"), strict=True):
            assert f"have different {differs};" in line
            assert line.count("\n") == 1


def test_output_folder_on_local_disks_is_refused_in_every_process(two):
    for process in two:
        for line in process["apart"]:
            assert "is not the same folder for all processes" in line.splitlines()[-1]
            assert "Traceback" not in line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[pair.cc:545] Read error: Connection reset by peer. GLHF!"), "has ended or hangs;"),
        (torch.distributed.DistBackendError("NCCL error\nLast error:\nremote closed"), r"hangs \(remote closed\)"),
        (torch.distributed.DistBackendError("NCCL\nDuplicate GPU detected : rank 1 and rank 0"), "have the same GPU"),
    ],
)
def test_process_lost_before_the_first_step_is_one_line(monkeypatch, error, message):
    def distributed_network(*_, **__):
        raise error

    monkeypatch.setattr(learner_module, "DistributedDataParallel", distributed_network)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=message):
        Trainer(SoCo(build_encoder(SMALL), SMALL), TrainingSettings(batch_size=4), 10, world=World(0, 2))


def test_second_call_waits_for_the_first_process_as_long_as_the_first_call(two):
    for process in two:
        assert process["waits"] == [TRAINING_TIMEOUT.total_seconds(), PREPARATION_TIMEOUT.total_seconds()]


def test_first_process_lists_unreadable_images_of_all_processes(two, folder):
    lines = (folder / "run" / "skipped.jsonl").read_text().splitlines()
    source = open_images(photographs())
    assert [json.loads(line)["path"] for line in lines] == sorted([source.key(0), source.key(1)])


def test_gathering_works_although_a_process_has_ended(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(distributed, "GATHER_TIMEOUT", timedelta(seconds=0.1))
    monkeypatch.setattr(distributed, "_gather_counter", iter([0, 0]))
    assert gather_to_first(World(1, 3), [("b.jpg", "torn")]) == [("b.jpg", "torn")]
    assert gather_to_first(World(0, 3), [("c.jpg", "gone"), ("a.jpg", "gone")]) == [
        ("a.jpg", "gone"),
        ("b.jpg", "torn"),
        ("c.jpg", "gone"),
    ]


def test_processes_pretrain_and_resume_one_run(two, folder):
    assert "stopped by max_steps after 1 of 3 steps" in two[0]["printed"][0]
    assert "finished, 3 steps" in two[0]["printed"][1]
    assert two[1]["printed"] == ["", ""]
    assert (folder / "run" / "log.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(("backend", "message"), [("cuda:gloo", "CPU"), ("gloo", "size of 1")])
def test_unsuitable_process_group_of_the_caller_is_refused(tmp_path, backend, message):
    """For example NCCL only, with which the first exchange would end in a traceback."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        with pytest.raises(InputError, match=message):
            join(World(0, 2), torch.device("cpu"))
    finally:
        torch.distributed.destroy_process_group()
