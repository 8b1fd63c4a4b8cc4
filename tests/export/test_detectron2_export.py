"""Detectron2's file against a list of facts: names and shapes, written as rules, and its checkpointer's matching.

The facts are about Detectron2's ResNet, FPN, FastRCNNConvFCHead and Res5ROIHeads.
"""

import io
import pickle
import pickletools

import numpy as np
import pytest
import torch
import yaml

from socodet.errors import InputError
from socodet.exporting import export_run

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
R50_BLOCKS = (3, 4, 6, 3)


def norm_facts(there, here, channels):
    """Batch norm: its name there → our name and its shape."""
    return {
        f"{there}.{leaf}": (f"{here}.{leaf}", () if leaf == "num_batches_tracked" else (channels,)) for leaf in NORM
    }


def conv_facts(there, here, here_norm, shape):
    """A convolution with Detectron2's norm inside: no bias."""
    return {f"{there}.weight": (f"{here}.weight", shape), **norm_facts(f"{there}.norm", here_norm, shape[0])}


def stage_facts(number, there, here):
    """A stage of bottleneck blocks; 2 is the first."""
    facts, middle, out = {}, 64 * 2 ** (number - 2), 256 * 2 ** (number - 2)
    for block in range(R50_BLOCKS[number - 2]):
        incoming = out if block else (64 if number == 2 else out // 2)
        t, h = f"{there}.{block}", f"{here}.{block}"
        facts |= conv_facts(f"{t}.conv1", f"{h}.conv1", f"{h}.bn1", (middle, incoming, 1, 1))
        facts |= conv_facts(f"{t}.conv2", f"{h}.conv2", f"{h}.bn2", (middle, middle, 3, 3))
        facts |= conv_facts(f"{t}.conv3", f"{h}.conv3", f"{h}.bn3", (out, middle, 1, 1))
        if block == 0:
            facts |= conv_facts(f"{t}.shortcut", f"{h}.downsample.0", f"{h}.downsample.1", (out, incoming, 1, 1))
    return facts


def resnet_facts(there, last):
    body = "backbone.body"
    facts = conv_facts(f"{there}.stem.conv1", f"{body}.conv1", f"{body}.bn1", (64, 3, 7, 7))
    for number in range(2, last + 1):
        facts |= stage_facts(number, f"{there}.res{number}", f"{body}.layer{number - 1}")
    return facts


def fpn_facts():
    """The tensors that an R-CNN with R50-FPN and a 4conv1fc head with norm shares with a run."""
    facts = resnet_facts("backbone.bottom_up", 5)
    for level in (2, 3, 4, 5):
        ours = f"backbone.fpn.%s_blocks.{level - 2}"
        lateral, output = ours % "inner", ours % "layer"
        shape = (256, 256 * 2 ** (level - 2), 1, 1)
        facts |= conv_facts(f"backbone.fpn_lateral{level}", f"{lateral}.0", f"{lateral}.1", shape)
        facts |= conv_facts(f"backbone.fpn_output{level}", f"{output}.0", f"{output}.1", (256, 256, 3, 3))
    for number in (1, 2, 3, 4):
        ours = f"box_head.{number - 1}"
        facts |= conv_facts(f"roi_heads.box_head.conv{number}", f"{ours}.0", f"{ours}.1", (256, 256, 3, 3))
    facts["roi_heads.box_head.fc1.weight"] = ("box_head.5.weight", (1024, 256 * 7 * 7))
    facts["roi_heads.box_head.fc1.bias"] = ("box_head.5.bias", (1024,))
    return facts


def c4_facts():
    """The tensors that an R-CNN with R50-C4 shares with a run."""
    return resnet_facts("backbone", 4) | stage_facts(5, "roi_heads.res5", "box_head")


FACTS = {"fpn": fpn_facts, "c4": c4_facts}
FRESH = (
    *("proposal_generator.rpn_head.conv.weight", "proposal_generator.rpn_head.objectness_logits.weight"),
    *("roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.weight"),
    *("roi_heads.mask_head.mask_fcn1.weight", "roi_heads.mask_head.mask_fcn1.norm.weight"),
    *("roi_heads.mask_head.deconv.weight", "roi_heads.mask_head.predictor.weight", "roi_heads.res5.norm.weight"),
)


class ArraysOnly(pickle.Unpickler):
    """An unpickler for what any NumPy version can read: only these two names."""

    def find_class(self, module, name):
        assert (module, name) in (("numpy", "ndarray"), ("builtins", "bytearray")), (module, name)
        return super().find_class(module, name)


def read(file):
    return ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()


@pytest.fixture(scope="module", params=["fpn", "c4"])
def exported(request, exportable_run, tmp_path_factory):
    run = exportable_run(architecture=request.param)
    return (
        request.param,
        run,
        export_run(run.path, tmp_path_factory.mktemp("d2") / "soco.pkl", format="detectron2").weights,
    )


def test_every_tensor_is_there_once_under_detectron2s_name(exported):
    kind, run, file = exported
    content = read(file)
    assert content["matching_heuristics"] is True
    assert content["__author__"] != "Caffe2"  # with this key, the checkpointer would rename everything
    facts, model = FACTS[kind](), content["model"]
    assert model.keys() == facts.keys()
    for name, (ours, shape) in facts.items():
        assert isinstance(model[name], np.ndarray)
        assert model[name].shape == shape, name
        assert torch.equal(torch.from_numpy(model[name]), run.tensors[ours]), name
    assert sorted(ours for ours, _ in facts.values()) == sorted(run.tensors)
    assert sorted(map(run.digest, model.values())) == run.digests()


def load_as_detectron2_does(model_shapes, checkpoint):
    """Each model key takes the tensor with that name, or with the key's longest suffix that begins after a dot."""
    taken = {}
    for key, shape in model_shapes.items():
        endings = [name for name in checkpoint if key == name or key.endswith("." + name)]
        if not endings:
            continue
        chosen = max(endings, key=len)
        assert checkpoint[chosen].shape == shape, key
        assert chosen not in taken.values(), f"{chosen} fits two keys"
        taken[key] = chosen
    return taken


def test_its_checkpointer_finds_a_place_for_every_tensor(exported):
    kind, run, file = exported
    facts, checkpoint = FACTS[kind](), read(file)["model"]
    shapes = {name: shape for name, (_, shape) in facts.items()} | dict.fromkeys(FRESH, (1,))
    taken = load_as_detectron2_does(shapes, checkpoint)
    assert taken.keys() == facts.keys()
    assert sorted(taken.values()) == sorted(checkpoint)
    for key, name in taken.items():
        assert torch.equal(torch.from_numpy(checkpoint[name]), run.tensors[facts[key][0]]), key


@pytest.mark.parametrize(("kind", "prefix"), [("fpn", "backbone.bottom_up."), ("c4", "backbone.")])
def test_a_backbone_alone_fits_fpn_and_c4_detectors(exportable_run, tmp_path, kind, prefix):
    run = exportable_run(architecture="c5")
    file = export_run(run.path, tmp_path / "soco.pkl", format="detectron2").weights
    checkpoint, facts = read(file)["model"], FACTS[kind]()
    shapes = {name: shape for name, (_, shape) in facts.items()} | dict.fromkeys(FRESH, (1,))
    taken = load_as_detectron2_does(shapes, checkpoint)
    assert sorted(taken.values()) == sorted(checkpoint)
    assert taken.keys() == {name for name in facts if name.startswith(prefix) or ".res5." in name} - {
        name for name in facts if ".fpn_" in name
    }
    for key, name in taken.items():
        ours = facts[key][0].replace("box_head.", "backbone.body.layer4.", 1)
        assert torch.equal(torch.from_numpy(checkpoint[name]), run.tensors[ours]), key
    configs = {path.name for path in (tmp_path / "soco-detectron2").iterdir()}
    assert {"mask_rcnn_R_50_FPN_1x.yaml", "mask_rcnn_R_50_C4_1x.yaml"} <= configs


def test_the_pickle_contains_no_names_that_moved_between_numpy_versions(exported):
    _, _, file = exported
    strings = {value for _, value, _ in pickletools.genops(file.read_bytes()) if isinstance(value, str)}
    assert "numpy" in strings
    assert not {value for value in strings if "multiarray" in value or value.startswith(("numpy.core", "numpy._core"))}


def configs_of(file):
    folder = file.parent / "soco-detectron2"
    return {path.name: yaml.safe_load(path.read_text()) for path in folder.iterdir()}


def test_the_configs_state_the_protocol(exported):
    kind, _, file = exported
    configs = configs_of(file)
    for config in configs.values():
        model = config["MODEL"]
        assert model["WEIGHTS"] == str(file)
        assert model["PIXEL_MEAN"] == [123.675, 116.28, 103.53]  # RGB order
        assert model["PIXEL_STD"] == [58.395, 57.12, 57.375]
        assert config["INPUT"]["FORMAT"] == "RGB"
        assert model["RESNETS"]["STRIDE_IN_1X1"] is False
        assert model["RESNETS"]["NORM"] == "SyncBN"
        assert model["RESNETS"]["DEPTH"] == 50
        assert model["BACKBONE"]["FREEZE_AT"] == 0
        assert config["TEST"]["PRECISE_BN"]["ENABLED"] is True
        assert config["SOLVER"]["BASE_LR"] == 0.02
        assert config["SOLVER"]["IMS_PER_BATCH"] == 16
    schedules = {
        name: (
            config["SOLVER"]["MAX_ITER"],
            config["SOLVER"]["STEPS"],
            config["SOLVER"]["WEIGHT_DECAY"],
            config["MODEL"]["ROI_HEADS"].get("NUM_CLASSES", 80),
            config["MODEL"]["MASK_ON"],
        )
        for name, config in configs.items()
    }
    if kind == "fpn":
        assert schedules == {
            "mask_rcnn_R_50_FPN_1x.yaml": (90_000, [60_000, 80_000], 2.5e-5, 80, True),
            "mask_rcnn_R_50_FPN_2x.yaml": (180_000, [120_000, 160_000], 2.5e-5, 80, True),
            "mask_rcnn_R_50_FPN_4x.yaml": (360_000, [240_000, 320_000], 2.5e-5, 80, True),
            "lvis_mask_rcnn_R_50_FPN_1x.yaml": (180_000, [120_000, 160_000], 2.5e-5, 1203, True),
            "lvis_mask_rcnn_R_50_FPN_2x.yaml": (360_000, [240_000, 320_000], 2.5e-5, 1203, True),
            "lvis_mask_rcnn_R_50_FPN_90k.yaml": (90_000, [60_000, 80_000], 2.5e-5, 1203, True),
        }
        head = configs["mask_rcnn_R_50_FPN_1x.yaml"]["MODEL"]["ROI_BOX_HEAD"]
        assert head == {
            "NAME": "FastRCNNConvFCHead",
            "NUM_CONV": 4,
            "CONV_DIM": 256,
            "NUM_FC": 1,
            "FC_DIM": 1024,
            "NORM": "SyncBN",
            "POOLER_RESOLUTION": 7,
        }
        assert configs["mask_rcnn_R_50_FPN_1x.yaml"]["MODEL"]["FPN"]["NORM"] == "SyncBN"
        assert configs["lvis_mask_rcnn_R_50_FPN_1x.yaml"]["TEST"]["DETECTIONS_PER_IMAGE"] == 300
    else:
        assert schedules == {
            "mask_rcnn_R_50_C4_1x.yaml": (90_000, [60_000, 80_000], 2.5e-5, 80, True),
            "mask_rcnn_R_50_C4_2x.yaml": (180_000, [120_000, 160_000], 2.5e-5, 80, True),
            "voc_faster_rcnn_R_50_C4_24k.yaml": (24_000, [18_000, 22_000], 1e-4, 20, False),
        }
        assert {config["MODEL"]["ROI_HEADS"]["NAME"] for config in configs.values()} == {"Res5ROIHeads"}


def test_a_config_states_the_runs_own_sizes(exportable_run, tmp_path):
    run = exportable_run(backbone="resnet18", fpn_channels=16, head_convs=2, head_channels=24, representation_size=40)
    file = export_run(run.path, tmp_path / "soco.pkl", format="detectron2").weights
    model = configs_of(file)["mask_rcnn_R_18_FPN_1x.yaml"]["MODEL"]
    arrays = read(file)["model"]
    assert model["RESNETS"]["RES2_OUT_CHANNELS"] == arrays["backbone.bottom_up.res2.1.conv2.weight"].shape[0]
    assert model["FPN"]["OUT_CHANNELS"] == arrays["backbone.fpn_lateral2.weight"].shape[0]
    assert model["ROI_BOX_HEAD"]["CONV_DIM"] == arrays["roi_heads.box_head.conv2.weight"].shape[0]
    assert model["ROI_BOX_HEAD"]["FC_DIM"] == arrays["roi_heads.box_head.fc1.weight"].shape[0]
    assert model["ROI_BOX_HEAD"]["NUM_CONV"] == 2
    assert not any(name.startswith("roi_heads.box_head.conv3") for name in arrays)


def test_a_config_names_the_link_and_not_its_target(exportable_run, tmp_path, monkeypatch):
    """Detectron2 recognises the layout by the suffix .pkl, which the link's target may not have."""
    run = exportable_run(backbone="resnet18", fpn_channels=16, head_channels=16, representation_size=24)
    (tmp_path / "soco.pkl").symlink_to("stored")
    monkeypatch.chdir(tmp_path)
    export_run(run.path, "soco.pkl", format="detectron2")
    assert (tmp_path / "stored").is_file()
    weights = configs_of(tmp_path / "soco.pkl")["mask_rcnn_R_18_FPN_1x.yaml"]["MODEL"]["WEIGHTS"]
    assert weights == str(tmp_path / "soco.pkl")


def test_networks_that_detectron2_lacks_are_refused(exportable_run, tmp_path):
    small = {"fpn_channels": 16, "head_channels": 16, "representation_size": 24}
    run = exportable_run(backbone="resnet18", architecture="c4", **small)
    with pytest.raises(InputError, match="bottleneck blocks"):
        export_run(run.path, tmp_path / "soco.pkl", format="detectron2")
    with pytest.raises(InputError, match=r"ends in \.pkl"):
        export_run(run.path, tmp_path / "soco.pth", format="detectron2")
    assert list(tmp_path.iterdir()) == []
