"""Weights on disk: what is read, what is never unpickled, and how backbones and detectors are found in a file."""

import argparse
import hashlib
import os
import re
import sys
import types
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import safetensors.torch
import torch
from torchvision.models import resnet18

from socodet.errors import InputError
from socodet.pretraining.recipes import recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile
from socodet.weights.pretrained_run import model_settings
from socodet.weights.read import read_pretrained

WEIGHTS = {"conv1.weight": torch.randn(4, 3, 7, 7), "bn1.bias": torch.randn(4)}


def assert_is_weights(state):
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_plain_state_dict_is_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(WEIGHTS, path)
    found = WeightsFile.find(path)
    assert_is_weights(found.read())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.describe(path) == {"from": str(path), "file": path.name, "sha256": sha256}


def test_torchvisions_own_state_dict_is_read(tmp_path):
    network = resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    assert WeightsFile.find(tmp_path / "resnet18.pth").read().keys() == network.state_dict().keys()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
def test_the_public_codes_checkpoint_is_read_despite_its_options(tmp_path, new_format):
    options = argparse.Namespace(arch="resnet50", cutout_ratio=(0.1, 0.3), in_channels=[256, 512], zip=True, aug=None)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9).state_dict()
    content = {"opt": options, "model": WEIGHTS, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "epoch": 100}
    torch.save(content, tmp_path / "ckpt.pth", _use_new_zipfile_serialization=new_format)
    assert_is_weights(WeightsFile.find(tmp_path / "ckpt.pth").read())
    with pytest.raises(Exception, match="Namespace"):  # the permission ended after reading
        torch.load(tmp_path / "ckpt.pth", weights_only=True)


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_unpickled(tmp_path):
    torch.save({"model": WEIGHTS, "opt": Intruder(tmp_path / "entered")}, tmp_path / "ckpt.pth")
    with pytest.raises(InputError, match="can be read safely") as caught:
        WeightsFile.find(tmp_path / "ckpt.pth").read()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "entered").exists()


def test_a_runs_newest_checkpoint_is_read(tmp_path):
    run = RunFolder(tmp_path)
    run.write_description({"recipe": to_json(recipe("tiny"))})
    with pytest.raises(InputError, match="has no checkpoint yet"):
        WeightsFile.find(tmp_path)
    run.save_checkpoint(1, {"step": 1, "model": {"other": torch.zeros(1)}})
    run.save_checkpoint(2, {"step": 2, "model": WEIGHTS})
    found = WeightsFile.find(tmp_path)
    assert found.path.name == "step-00000002.pt"
    assert_is_weights(found.read())


def test_the_best_checkpoint_of_a_run_is_read_without_the_others(tmp_path):
    """They may have been deleted to save space."""
    run = RunFolder(tmp_path)
    run.write_description({"recipe": {"name": "finetune"}})
    run.save_best({"step": 2, "detector": WEIGHTS})
    assert WeightsFile.find(tmp_path).path == run.best


def test_a_truncated_checkpoint_is_skipped_for_the_previous_one(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": {}})
    run.save_checkpoint(1, {"step": 1, "model": WEIGHTS})
    newest = run.save_checkpoint(2, {"step": 2, "model": {"other": torch.zeros(1)}})
    newest.write_bytes(newest.read_bytes()[:-20])
    assert WeightsFile.find(run.path).read().keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("content", "problem"), [({"epoch": 3}, "holds no state dict"), ([torch.ones(1)], "holds no state dict")]
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, problem):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=problem):
        WeightsFile.find(tmp_path / "x.pth").read()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"a list of things\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<title>404</title>", "web page"),
        (b"PK\x03\x04" + bytes(50), "cut short"),
    ],
)
def test_a_file_of_another_kind_is_named_as_such(tmp_path, content, what):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=what):
        WeightsFile.find(tmp_path / "x.pth").read()


def test_missing_files_and_files_without_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        WeightsFile.find(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="not a run"):
        WeightsFile.find(tmp_path)
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(InputError, match="not a file of weights that can be read safely"):
            WeightsFile.find(tmp_path / name).read()


with torch.device("meta"):
    RESNET = tuple(resnet18(weights=None).state_dict())
BODY = {name: torch.full((1,), float(place)) for place, name in enumerate(RESNET) if not name.startswith("fc.")}


def under(prefix, tensors=BODY, factor=1.0):
    return {prefix + name: factor * value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("content", "prefix", "left_over"),
    [
        pytest.param(BODY | {"fc.weight": torch.ones(1)}, "", {"fc": 1}, id="plain"),
        pytest.param(under("module."), "module.", {}, id="DataParallel"),
        pytest.param(under("_orig_mod."), "", {}, id="torch.compile"),
        pytest.param({"state_dict": under("model."), "epoch": 1}, "model.", {}, id="Lightning"),
        pytest.param(
            {
                "state_dict": under("module.encoder_k.", factor=-1.0)
                | under("module.encoder_q.")
                | under("module.encoder_q.", {"fc.0.weight": torch.ones(1)})
                | {"module.queue": torch.ones(2)}
            },
            "module.encoder_q.",
            {"fc": 1, "encoder_k": 120, "queue": 1},
            id="MoCo",
        ),
        pytest.param(
            {"state_dict": under("module.momentum_encoder.", factor=-1.0) | under("module.base_encoder.")},
            "module.base_encoder.",
            {"momentum_encoder": 120},
            id="MoCo v3",
        ),
        pytest.param(
            {"state_dict": under("backbone.") | {"head.fc.weight": torch.ones(10)}, "meta": {}},
            "backbone.",
            {"head": 1},
            id="OpenMMLab",
        ),
        pytest.param(
            {"student": under("module.backbone.", factor=-1.0), "teacher": under("backbone."), "epoch": 1},
            "backbone.",
            {},
            id="DINO",
        ),
        pytest.param(
            {"state_dict": under("", factor=-1.0), "state_dict_ema": under("module."), "epoch": 1},
            "module.",
            {},
            id="timm with a moving average",
        ),
        pytest.param(
            {"model": under("", factor=-1.0), "model_ema": BODY | {"head.weight": torch.ones(1)}},
            "",
            {"head": 1},
            id="a moving average by its other name",
        ),
        pytest.param(
            {"state_dict": under("backbone.model.") | {"backbone.model.fc.weight": torch.ones(1)}},
            "backbone.model.",
            {"fc": 1},
            id="a backbone whose names begin like transformers'",
        ),
        pytest.param(
            {
                "phase_idx": 99,
                "loss": {"momentum_teacher.module.trunk.conv1.weight": torch.ones(1)},
                "classy_state_dict": {
                    "train": True,
                    "base_model": {
                        "model": {
                            "trunk": under("_feature_blocks."),
                            "heads": under("0.", {"projection_head.0.weight": torch.ones(1)}),
                        },
                        "meta": {"trunk": {}, "heads": []},
                    },
                    "meters": [],
                    "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.ones(1)}}, "param_groups": []}},
                },
            },
            "trunk._feature_blocks.",
            {"heads": 1},
            id="VISSL",
        ),
        pytest.param(
            {"classy_state_dict": {"base_model": {"model": {"trunk": under("base_model._feature_blocks.")}}}},
            "trunk.base_model._feature_blocks.",
            {},
            id="VISSL, frozen",
        ),
        pytest.param(
            {"model_state_dict": under("_feature_blocks."), "iteration": 1},
            "model_state_dict._feature_blocks.",
            {},
            id="VISSL, the trunk alone",
        ),
        pytest.param(
            {
                "state_dict": under("encoder_q.0.")
                | under("encoder_k.0.", factor=-1.0)
                | under("backbone.")
                | {"encoder_q.1.mlp.0.weight": torch.ones(1), "encoder_k.1.mlp.0.weight": torch.ones(1)}
                | {"queue": torch.ones(2), "queue_ptr": torch.ones(1), "queue2": torch.ones(2)}
            },
            "encoder_q.0.",
            {"encoder_k": 121, "backbone.conv1": 1, "backbone.bn1": 5}
            | {"backbone.layer1": 24, "backbone.layer2": 30, "backbone.layer3": 30, "backbone.layer4": 30}
            | {"encoder_q": 1, "queue": 1, "queue_ptr": 1, "queue2": 1},
            id="DenseCL and MoCo of OpenSelfSup",
        ),
        pytest.param(
            {"state_dict": under("backbone.") | under("target_net.module.0.", factor=-1.0), "meta": {}},
            "backbone.",
            {"target_net": 120},
            id="BYOL of MMSelfSup",
        ),
        pytest.param(
            {"state_dict": under("backbone.") | under("momentum_backbone.", factor=-1.0), "global_step": 3},
            "backbone.",
            {"momentum_backbone": 120},
            id="solo-learn",
        ),
        pytest.param(
            {"state_dict": under("encoder.") | {"projection_head.layers.0.weight": torch.ones(1)}},
            "encoder.",
            {"projection_head": 1},
            id="Lightning, its part",
        ),
        pytest.param(
            under("module.")
            | {f"module.{name}": torch.ones(1) for name in ("projection_head.0.bias", "prototypes.weight")},
            "module.",
            {"projection_head": 1, "prototypes": 1},
            id="SwAV",
        ),
        pytest.param(
            {"state_dict": under("module.encoder.") | {"module.predictor.0.weight": torch.ones(1)}, "arch": "resnet50"},
            "module.encoder.",
            {"predictor": 1},
            id="SimSiam",
        ),
        pytest.param(
            {
                "epoch": 1,
                "model": under("module.backbone.")
                | {"module.projector.0.weight": torch.ones(1), "module.bn.running_mean": torch.ones(1)},
            },
            "module.backbone.",
            {"projector": 1, "bn": 1},
            id="Barlow Twins and VICReg",
        ),
        pytest.param(
            {
                "model": under("module.encoder.")
                | under("module.encoder_k.", factor=-1.0)
                | under(
                    "module.", dict.fromkeys(("projector.linear1.weight", "projector_k.linear1.weight"), torch.ones(1))
                )
                | {"module.value_transform.weight": torch.ones(1)}
            },
            "module.encoder.",
            {"encoder_k": 120, "projector": 1, "projector_k": 1, "value_transform": 1},
            id="PixPro",
        ),
        pytest.param(
            {
                "state_dict": under("backbone.")
                | under("backbone_k.", factor=-1.0)
                | {"neck.lateral_convs.0.bn.weight": torch.ones(1), "neck_k.lateral_convs.0.bn.weight": torch.ones(1)}
                | {"roi_head.bbox_head.shared_fcs.1.weight": torch.ones(1), "queues": torch.ones(2)}
            },
            "backbone.",
            {"backbone_k": 120, "neck": 1, "neck_k": 1, "roi_head": 1, "queues": 1},
            id="InsLoc",
        ),
        pytest.param(
            under("module._orig_mod.student.", factor=-1.0) | under("module._orig_mod.teacher."),
            "module.teacher.",
            {"student": 120},
            id="student and teacher in one",
        ),
    ],
)
def test_a_backbone_in_a_wrapper_is_found_under_its_prefix(tmp_path, content, prefix, left_over):
    torch.save(content, tmp_path / "wrapped.pth")
    found = read_pretrained(tmp_path / "wrapped.pth", lambda name: name in BODY)
    body = {f"body.{name}" for name in BODY}
    assert {name for name in found.tensors if name in body} == body
    assert all(torch.equal(found.tensors[f"body.{name}"], value) for name, value in BODY.items())
    assert (found.format.title, found.format.prefix) == (
        f"a backbone, its names after {prefix}" if prefix else "a backbone",
        prefix,
    )
    assert Counter(found.left_over(body).values()) == left_over


def test_two_equally_likely_backbones_are_refused(tmp_path):
    torch.save(under("left.") | under("right.", factor=2.0), tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"two\.pth: holds 2 backbones, named by the prefixes left\. and right\."):
        read_pretrained(tmp_path / "two.pth", lambda name: name in BODY)


def test_the_evaluated_copy_of_a_detector_is_read_and_ambiguous_copies_are_refused(tmp_path):
    student, teacher = (
        under(f"{name}.backbone.body.", factor=factor) for name, factor in (("student", -1), ("teacher", 1))
    )
    torch.save(student | teacher, tmp_path / "two.pth")
    found = read_pretrained(tmp_path / "two.pth", lambda name: name in BODY)
    assert found.format.prefix == "teacher."
    assert all(torch.equal(found.tensors[f"body.{name}"], value) for name, value in BODY.items())
    assert Counter(found.left_over(found.tensors).values()) == {"student": 120}
    torch.save(under("backbone.body.") | under("other.backbone.body.", factor=2.0), tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"two\.pth: holds 2 detectors, .* none and other\.;"):
        read_pretrained(tmp_path / "two.pth", lambda name: name in BODY)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
def test_numpy_numbers_and_mmengines_log_beside_the_weights_are_skipped(tmp_path, monkeypatch, new_format):
    """As saved by MMEngine during training; its class for logged values need not be installed to read the file."""
    package, module = types.ModuleType("mmengine.logging"), types.ModuleType("mmengine.logging.history_buffer")
    history = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = history
    log = history()
    log.max_length, log._log_history, log._count_history = 1000, np.array([1.5, 2.5]), np.array([1, 2])
    content = {
        "meta": {"epoch": 1, "seed": np.int64(3), "names": np.array(["cat"]), "sizes": np.array([{"cat": 1}, None])},
        "state_dict": WEIGHTS,
        "message_hub": {"log_scalars": {"train/loss": log}, "runtime_info": {"best": np.float64(0.5)}},
    }
    with monkeypatch.context() as installed:
        for one in (types.ModuleType("mmengine"), package, module):
            installed.setitem(sys.modules, one.__name__, one)
        torch.save(content, tmp_path / "epoch_1.pth", _use_new_zipfile_serialization=new_format)
    assert_is_weights(WeightsFile.find(tmp_path / "epoch_1.pth").read())


@pytest.mark.parametrize("key", ["cfg", "config"], ids=["MMEngine", "MMCV"])
def test_openmmlabs_caffe_resnet_is_not_mistaken_for_torchvisions(tmp_path, key):
    """Its weights have the same names and shapes, but its strides and its normalisation of pixels differ."""
    backbone = "backbone=dict(\n        type='ResNet',\n        depth=50,\n        style='{}')"
    for style in ("caffe", "pytorch"):
        content = {"meta": {key: f"model = dict(\n    {backbone.format(style)})"}, "state_dict": under("backbone.")}
        torch.save(content, tmp_path / f"{style}.pth")
    assert len(read_pretrained(tmp_path / "pytorch.pth", lambda name: name in BODY).tensors) == 120
    with pytest.raises(InputError, match=r"caffe\.pth: .*1x1.*BGR") as caught:
        read_pretrained(tmp_path / "caffe.pth", lambda name: name in BODY)
    assert "\n" not in str(caught.value)


def test_paths_among_saved_settings_are_ignored(tmp_path):
    """As in Lightning's `hyper_parameters`. The module of the path class depends on the Python version."""
    torch.save({"state_dict": WEIGHTS, "hyper_parameters": {"data": tmp_path, "epochs": 3}}, tmp_path / "last.ckpt")
    assert_is_weights(WeightsFile.find(tmp_path / "last.ckpt").read())


def test_the_object_that_prevents_reading_is_named(tmp_path):
    for what, named in ((Intruder(tmp_path / "entered"), "mkdir"), (Fraction(1, 2), r"fractions\.Fraction")):
        torch.save({"state_dict": WEIGHTS, "config": what}, tmp_path / "ckpt.pth")
        with pytest.raises(InputError, match=rf"it also holds [\w.]*{named}, "):
            WeightsFile.find(tmp_path / "ckpt.pth").read()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    torch.save(under("backbone.body.", BODY | {"bn1.bias": torch.tensor([1.0, value])}), tmp_path / "diverged.pth")
    with pytest.raises(InputError, match=r"diverged\.pth: backbone\.body\.bn1\.bias holds NaN or infinity") as caught:
        read_pretrained(tmp_path / "diverged.pth", lambda name: name in BODY)
    assert "\n" not in str(caught.value)


def test_a_target_network_that_diverged_does_not_matter(tmp_path):
    torch.save(under("encoder.") | under("encoder_k.", factor=float("nan")), tmp_path / "ckpt.pth")
    assert len(read_pretrained(tmp_path / "ckpt.pth", lambda name: name in BODY).tensors) == 120


def test_a_fine_tuned_detectors_checkpoint_is_not_read_as_a_pretrained_one(tmp_path):
    torch.save({"step": 1, "detector": under("backbone.body.")}, tmp_path / "step-00000001.pt")
    with pytest.raises(InputError, match="not one of a pretraining run"):
        read_pretrained(tmp_path / "step-00000001.pt", lambda name: name in BODY)


@pytest.mark.parametrize("text", ["{not json", "[]", '{"backbone_config": [1]}', '{"backbone_config": {"depths": 5}}'])
def test_a_config_that_is_no_transformers_detectors_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}"):
        model_settings(tmp_path)


def test_sizes_missing_from_a_resnets_config_are_transformers_defaults(tmp_path):
    (tmp_path / "config.json").write_text('{"backbone_config": {"model_type": "resnet"}}')
    assert model_settings(tmp_path).backbone == "resnet50"


def test_a_torchscript_program_is_refused_by_name(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "program.pt")
    with warnings.catch_warnings(record=True) as said, pytest.raises(InputError, match="TorchScript"):
        WeightsFile.find(tmp_path / "program.pt").read()
    assert not said


def test_too_little_memory_is_not_reported_as_a_bad_file(tmp_path, monkeypatch):
    def load(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    torch.save(WEIGHTS, tmp_path / "weights.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(InputError, match="more memory"):
        WeightsFile.find(tmp_path / "weights.pth").read()
