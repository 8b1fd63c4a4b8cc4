"""Two processes, each with half the batch, fine-tune the same detector as one process with the whole batch."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photograph_sets import coco_file
from test_a_detector_of_ones_own import OneBoxDetector
from torchvision.models.resnet import ResNet
from two_processes import in_two_processes

import socodet.finetuning.detector as detector_module
import socodet.models.backbones as backbones_module
from socodet.cli import main
from socodet.detection.detectors import rcnn_fpn
from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.finetuning.detector import load_detector
from socodet.finetuning.samples import DetectionBatch
from socodet.finetuning.trainer import FineTuner
from socodet.models.settings import ModelSettings
from socodet.runtime.world import World, world_from_environment
from socodet.training.distributed import join
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

NARROW = ModelSettings("fpn", "resnet18", 16, 1, 16, 24, hidden_size=8, embedding_size=4)
IMAGES, OBJECTS, SIDE, STEPS = 4, 4, 64, 2
DETECTORS = ("retinanet_fpn", "fcos_fpn", "mask_rcnn_fpn")


class Doubles(DetectionBatch):
    """In float64, so that differences between one process and two are not rounding."""

    def to(self, device):
        images, targets = super().to(device)
        exact = [{**target, "boxes": target["boxes"].double()} for target in targets]
        return [image.double() for image in images], exact


def a_batch(step: int, world: World) -> DetectionBatch:
    """A process's share of a step's four images, all different, with objects of very different sizes."""
    generator = torch.Generator().manual_seed(step)
    images, targets = [], []
    for number in range(IMAGES):
        images.append(torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
        corner = torch.rand(OBJECTS, 2, generator=generator) * SIDE / 2
        boxes = torch.cat([corner, corner + 8 + torch.rand(OBJECTS, 2, generator=generator) * 6 * (1 + number)], 1)
        masks = torch.rand(OBJECTS, SIDE, SIDE, generator=generator) < 0.5
        labels = torch.randint(1, 4, (OBJECTS,), generator=generator)
        targets.append({"boxes": boxes.clamp(max=SIDE), "labels": labels, "masks": masks.to(torch.uint8)})
    share = IMAGES // world.size
    own = slice(world.rank * share, (world.rank + 1) * share)
    return Doubles(images[own], targets[own])


def train(name: str, world: World) -> tuple[list[float], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses, weights before, weights after. Regions are sampled in order, equally many from each image."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # full width: with few channels, rounding exceeds 1e-9
        patch.setattr(backbones_module, "ResNet", ResNet)
        patch.setattr(rcnn_fpn, "MASK_CHANNELS", 256)
        network = new_detector(name, NARROW, 4).double()
    for module in network.modules():
        module._forward_hooks.clear()  # the hooks would make outputs float32
    for key, parameter in network.named_parameters():
        if key.startswith(("head.", "rpn.")) and parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.1)  # with SD 0.01 hardly any gradient would reach the backbone
    if name.startswith("mask"):
        network.rpn.fg_bg_sampler.batch_size_per_image = 32
        network.roi_heads.fg_bg_sampler.batch_size_per_image = 4  # one of them positive: there are enough objects
    before = {key: value.clone() for key, value in network.state_dict().items()}
    settings = ScheduleSettings(STEPS, IMAGES, lr=0.1, warmup_iterations=0, clip_norm=5.0)
    tuner = FineTuner(network, detector_named(name), settings, ExecutionSettings("cpu"), world)
    losses = []
    for step in range(STEPS):
        tuner.step(a_batch(step, world))
        losses.append(tuner.metrics(1.0, 0.0)["loss"])
    tuner.reestimate([a_batch(STEPS, world)])
    return losses, before, tuner.network.state_dict()


def train_custom(world: World) -> torch.Tensor:
    """What a user's detector learns; some of its parameters get no gradient."""
    detector = OneBoxDetector()
    schedule = replace(detector.schedule("coco_1x"), iterations=STEPS, batch_size=IMAGES, warmup_iterations=0)
    tuner = FineTuner(detector.build(None, 2, None).double(), detector, schedule, ExecutionSettings("cpu"), world)
    for step in range(STEPS):
        tuner.step(a_batch(step, world))
    return tuner.network.box.detach()


def in_order(count: int, **options: object) -> torch.Tensor:
    return torch.arange(count, **options)  # type: ignore[call-overload,no-any-return]


def arguments_for(folder: Path, output: str) -> list[str]:
    data = str(folder / "set.json")
    flags = ["finetune", data, "--val", data, "--detector", "retinanet_r50_fpn", "--iterations", "3", "--size", "64"]
    flags += ["--batch-size", "2", "--precise-bn", "1", "--workers", "0", "--device", "cpu", "--log-every", "1"]
    return [*flags, "--backbone", "resnet18", "--fpn-channels", "16", "--output", str(folder / output)]


def printed(arguments: list[str]) -> str:
    """What the command prints in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(arguments)
    return out.getvalue()


def refused(command: list[str]) -> str:
    """The error of a command that this process refuses."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    return errors.getvalue()


def process_of_the_device(run: Path) -> int:
    """The rank of the process on whose device a detector is loaded."""
    ranks = []

    def choose(_name: str, world: World) -> torch.device:
        ranks.append(world.rank)
        return torch.device("cpu")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_module, "choose_device", choose)
        load_detector(run)
    return ranks[0]


def in_process(rank: int, folder: Path) -> None:
    """Everything the two processes do in these tests, in one go: starting them takes longest."""
    outputs = [printed([*arguments_for(folder, "two"), "--max-steps", "2"]), printed(arguments_for(folder, "two"))]
    other = str(folder / ("set.json", "other.json")[rank])
    run = str(folder / "two")
    errors = [
        refused(["finetune", other, *arguments_for(folder, "three")[2:]]),
        refused([*arguments_for(folder, "three"), "--patience", str(1 + rank), "--evaluation.every", "1"]),
        refused(["evaluate", run, "--data", other, "--device", "cpu", "--workers", "0"]),
    ]
    torch.randperm = in_order  # type: ignore[assignment]
    world = world_from_environment()
    join(world, torch.device("cpu"))
    found: dict[str, object] = {"printed": outputs, "refused": errors, "device": process_of_the_device(Path(run))}
    found["own"] = train_custom(world)
    for name in DETECTORS:
        losses, _, after = train(name, world)
        found[name] = losses, after
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two_processes")
    coco_file(folder / "set.json", ("astronaut", "cameraman"), masks=False)  # both have the same size
    coco_file(folder / "other.json", ("astronaut",), masks=False)
    return folder


@pytest.fixture(scope="module")
def two(folder) -> list[dict]:
    """What each of two processes found."""
    in_two_processes(in_process, folder)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank in (0, 1):
        (folder / f"{rank}.pt").unlink()  # hundreds of megabytes
    return found


def test_two_processes_match_one(two, monkeypatch):
    monkeypatch.setattr(torch, "randperm", in_order)
    for name in DETECTORS:
        losses, before, after = train(name, World())
        for rank in (0, 1):
            theirs_losses, theirs = two[rank][name]
            exact = 1e-7 if name.startswith("mask") else 1e-9  # the RPN's objectness loss is computed in float32
            assert theirs_losses == pytest.approx(losses, rel=exact), name
            assert theirs.keys() == after.keys()
            for key, value in after.items():
                change = float((value - before[key]).abs().max())
                assert change > 1e-9 or not key.startswith(("backbone.body.", "roi_heads.")), (name, key)
                assert float((theirs[key] - value).abs().max()) < 1e-5 * change + 1e-14, (name, key)


def test_parameters_without_gradients_work_with_several_processes(two):
    for process in two:
        torch.testing.assert_close(process["own"], train_custom(World()))


def test_processes_with_different_datasets_or_settings_are_all_refused(two):
    for process in two:
        for line, differs in zip(process["refused"], ("annotations", "settings", "annotations"), strict=True):
            assert f"have different {differs}" in line.strip().splitlines()[-1]
            assert "Traceback" not in line


def test_each_process_loads_a_detector_onto_its_own_device(two):
    assert [process["device"] for process in two] == [0, 1]


def test_processes_fine_tune_stop_and_resume_one_detector(two, folder):
    first, second = two[0]["printed"]
    assert "stopped by max_steps after 2 of 3 steps" in first
    assert second.count("finished, 3 steps") == 1
    assert second.count("\nbox") == 1  # the table of scores
    assert two[1]["printed"] == ["", ""]
    main(arguments_for(folder, "one"))
    runs = [RunFolder(folder / name) for name in ("one", "two")]
    one, other = (run.load_checkpoint()["detector"] for run in runs)
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-5, msg=key)
    lines = [list(run.log_lines()) for run in runs]
    assert [[line["step"] for line in of_run if "loss" in line] for of_run in lines] == [[1, 2, 3], [1, 2, 3]]
    for ours, theirs in zip(*lines, strict=True):
        assert ours.get("loss", 0) == pytest.approx(theirs.get("loss", 0), rel=1e-4)
