"""The public code's checkpoints as a detector's initial weights: every tensor is loaded or reported."""

import argparse
import json

import pytest
import torch
from photograph_sets import coco_file

from socodet.cli import main
from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.models.settings import ModelSettings
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained

pytestmark = pytest.mark.usefixtures("narrow_networks")

CHANNELS = (8, 16, 32, 64)
"""Channels of each stage of a narrow ResNet-18; the stem has as many as the first stage."""
WIDTH, FEATURES = 8, 12
R18 = ModelSettings("fpn", "resnet18", WIDTH, 4, WIDTH, FEATURES, hidden_size=16, embedding_size=6)
FLAGS = ["--backbone", "resnet18", "--fpn-channels", "8", "--head-channels", "8", "--representation-size", "12"]


def value(*shape):
    return 0.05 * torch.randn(shape)


def convolution(name, outputs, inputs, side):
    return {f"{name}.weight": value(outputs, inputs, side, side)}


def linear(name, outputs, inputs):
    return {f"{name}.weight": value(outputs, inputs), f"{name}.bias": value(outputs)}


def norm(name, channels):
    vectors = {f"{name}.{part}": torch.rand(channels) + 0.5 for part in ("weight", "bias", "running_mean")}
    return {
        **vectors,
        f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.randint(10**9, ()),
    }


def residual_network():
    """A ResNet-18's tensors: 20 convolutions and 20 norms."""
    inputs = CHANNELS[0]
    tensors = {**convolution("conv1", inputs, 3, 7), **norm("bn1", inputs)}
    for layer, channels in enumerate(CHANNELS, 1):
        for block in (0, 1):
            place = f"layer{layer}.{block}"
            tensors |= convolution(f"{place}.conv1", channels, inputs, 3) | norm(f"{place}.bn1", channels)
            tensors |= convolution(f"{place}.conv2", channels, channels, 3) | norm(f"{place}.bn2", channels)
            if inputs != channels:
                tensors |= convolution(f"{place}.downsample.0", channels, inputs, 1)
                tensors |= norm(f"{place}.downsample.1", channels)
            inputs = channels
    return tensors


def neck():
    tensors = {}
    for level, channels in enumerate(CHANNELS):
        tensors |= convolution(f"lateral_convs.{level}.conv", WIDTH, channels, 1)
        tensors |= norm(f"lateral_convs.{level}.bn", WIDTH)
        tensors |= convolution(f"fpn_convs.{level}.conv", WIDTH, WIDTH, 3) | norm(f"fpn_convs.{level}.bn", WIDTH)
    return tensors


def head():
    tensors = linear("fc1", FEATURES, WIDTH * 7 * 7)
    for number in (1, 2, 3, 4):
        tensors |= convolution(f"conv{number}", WIDTH, WIDTH, 3) | norm(f"bn{number}", WIDTH)
    return tensors


def perceptron(inputs):
    return linear("linear1", 16, inputs) | norm("bn1", 16) | linear("linear2", 6, 16)


def model_of(kind):
    """The `model` entry of a checkpoint of SoCo-FPN, or of SoCo-C4; SoCo*'s names are SoCo-FPN's."""
    torch.manual_seed(3)
    parts = {"encoder": residual_network, "projector": lambda: perceptron(CHANNELS[-1])}
    if kind == "fpn":
        parts |= {"neck": neck, "head": head, "projector": lambda: perceptron(FEATURES)}
    named = {part: make() for part, make in parts.items()} | {"predictor": perceptron(6)}
    named |= {f"{part}_k": make() for part, make in parts.items()}
    model = {f"module.{part}.{name}": tensor for part, tensors in named.items() for name, tensor in tensors.items()}
    return model if kind == "fpn" else model | {"module.queue": value(6, 10), "module.queue_ptr": torch.tensor([0])}


def checkpoint(path, model):
    """Writes a file like the public code's `save_checkpoint`, including the state of mixed precision."""
    options = argparse.Namespace(
        arch="resnet50", model="SoCo_FPN", in_channels=[256, 512, 1024, 2048], cutout_ratio=(0.1, 0.3), zip=True
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9).state_dict()
    content = {"opt": options, "model": model, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "epoch": 100}
    torch.save(content | {"amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 7}}}, path)
    return path


def theirs_of(name, *, finest=2):
    """The public code's name for a detector's tensor; its first pyramid block is P2's."""
    first, rest = name.split(".", 1)
    if first == "backbone" and rest.startswith("body."):
        return "module.encoder." + rest.removeprefix("body.")
    if first == "backbone":
        _, kind, block, part, tensor = rest.split(".")
        convolutions = {"inner_blocks": "lateral_convs", "layer_blocks": "fpn_convs"}[kind]
        return f"module.neck.{convolutions}.{int(block) + finest - 2}.{('conv', 'bn')[int(part)]}.{tensor}"
    _, index, *rest = rest.split(".")
    if len(rest) == 1:
        return f"module.head.fc1.{rest[0]}"
    if rest[0] in ("0", "1"):
        return f"module.head.{('conv', 'bn')[int(rest[0])]}{int(index) + 1}.{rest[1]}"
    return ".".join(["module.encoder.layer4", index, *rest])


TARGET_AND_REST = {"encoder_k": 120, "neck_k": 48, "head_k": 26, "projector": 9, "projector_k": 9, "predictor": 9}
OF_C4 = {"encoder_k": 120, "projector": 9, "projector_k": 9, "predictor": 9, "queue": 1, "queue_ptr": 1}
PYRAMID = {f"P{level}'s {kind} convolution": 6 for level in (2, 3, 4, 5) for kind in ("lateral", "output")}
P2 = {f"P2's {kind} convolution": 6 for kind in ("lateral", "output")}


@pytest.mark.parametrize(
    ("kind", "detector", "loaded", "left"),
    [
        ("fpn", "mask_rcnn_fpn", {"backbone.body": 120, "backbone.fpn": 48, "roi_heads.box_head": 26}, {}),
        ("fpn", "retinanet_fpn", {"backbone.body": 120, "backbone.fpn": 36}, P2 | {"box head": 26}),
        ("fpn", "mask_rcnn_c4", {"backbone.body": 90, "roi_heads.box_head": 30}, PYRAMID | {"box head": 26}),
        ("c4", "mask_rcnn_c4", {"backbone.body": 90, "roi_heads.box_head": 30}, {}),
        ("c4", "mask_rcnn_fpn", {"backbone.body": 120}, {}),
    ],
)
def test_every_tensor_is_loaded_or_reported(tmp_path, kind, detector, loaded, left):
    model = model_of(kind)
    network = new_detector(detector, R18, 4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_pretrained(network, checkpoint(tmp_path / "ckpt_epoch_100.pth", model), show_report=False)
    assert report.loaded_modules == loaded
    assert report.left_over_modules == left | (TARGET_AND_REST if kind == "fpn" else OF_C4)
    assert len(report.loaded) + len(report.left_over) == len(model)
    after = network.state_dict()
    for name in report.loaded:
        theirs = theirs_of(name, finest=3 if detector.startswith("retinanet") else 2)
        assert torch.equal(after[name], model[theirs]), (name, theirs)
        part = theirs.split(".")[1]
        assert not torch.equal(after[name], model[theirs.replace(f".{part}.", f".{part}_k.", 1)]), name
    assert {*report.loaded, *report.fresh} == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)


@pytest.mark.parametrize("detector", ["mask_rcnn_fpn", "mask_rcnn_c4"])
def test_one_command_fine_tunes_a_public_checkpoint_under_table_1s_protocol(tmp_path, capsys, detector):
    kind = "c4" if detector.endswith("c4") else "fpn"
    model = model_of(kind)
    file = checkpoint(tmp_path / "ckpt_epoch_100.pth", model)
    command = ["finetune", str(coco_file(tmp_path / "set.json")), "--init", str(file), "--detector", detector]
    command += ["--schedule", "coco_1x", "--output", str(tmp_path / "run"), *FLAGS, "--size", "32"]
    main([*command, "--batch-size", "2", "--max-steps", "1", "--workers", "0", "--device", "cpu"])
    said = capsys.readouterr().err
    assert "ckpt_epoch_100.pth (the public code):\n  loaded  backbone.body" in said
    assert "fresh   rpn.head (6 tensors)" in said
    assert "left over" in said
    assert "encoder_k (120 tensors)" in said
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    schedule = described["recipe"]["schedule"]
    assert (schedule["iterations"] * schedule["batch_size"], schedule["lr"]) == (90_000 * 16, 0.02 / 8)
    assert (schedule["weight_decay"], schedule["warmup_iterations"]) == (2.5e-5, 8000)
    assert (described["start"]["file"], len(described["start"]["sha256"])) == ("ckpt_epoch_100.pth", 64)
    trained = RunFolder(tmp_path / "run").load_checkpoint()["detector"]
    place = "roi_heads.box_head.0.conv1.weight" if kind == "c4" else "backbone.fpn.layer_blocks.2.0.weight"
    for name in ("backbone.body.layer3.1.conv2.weight", place):  # after one step at a thousandth of the learning rate
        torch.testing.assert_close(trained[name], model[theirs_of(name)], rtol=0, atol=1e-3)
        assert not torch.equal(trained[name], model[theirs_of(name)])


@pytest.mark.parametrize(
    "stranger", ["head.fc2.weight", "neck.scales.0", "encoder.fc.weight", "neck.fpn_convs.4.conv.weight"]
)
def test_an_encoder_tensor_without_a_counterpart_is_refused(tmp_path, stranger):
    model = model_of("fpn") | {f"module.{stranger}": value(3)}
    network = new_detector("mask_rcnn_fpn", R18, 4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=r"ckpt\.pth: .*(not part of the encoder|has no place)") as caught:
        load_pretrained(network, checkpoint(tmp_path / "ckpt.pth", model))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_runs_checkpoint_file_loads_like_its_folder(tmp_path):
    from socodet.models.architectures import build_encoder
    from socodet.models.soco import SoCo
    from socodet.pretraining.recipes import Recipe
    from socodet.runtime.serialization import to_json

    run = RunFolder(tmp_path)
    run.write_description({"recipe": to_json(Recipe("custom", model=R18))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(R18), R18).state_dict()})
    one, other = new_detector("fcos_fpn", R18, 4), new_detector("fcos_fpn", R18, 4)
    of_folder = load_pretrained(one, tmp_path, show_report=False)
    of_file = load_pretrained(other, run.checkpoints()[0], show_report=False)
    assert of_file.loaded_modules == of_folder.loaded_modules
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert {"projector", "predictor", "target"} <= of_file.left_over_modules.keys()
