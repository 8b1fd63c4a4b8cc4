"""MMDetection's files against a list of facts: the names and shapes of its own modules, written as rules.

The facts are about its ResNet, FPN (blocks numbered from `start_level`), ConvFCBBoxHead and ResLayer (3.x).
"""

import pytest
import torch

from socodet.errors import InputError
from socodet.exporting import export_run

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
R50_CHANNELS = {2: 256, 3: 512, 4: 1024, 5: 2048}


def body_facts(run):
    """MMDetection's ResNet in its "pytorch" style has torchvision's names; → our names."""
    body = {name: name.removeprefix("backbone.body.") for name in run.tensors if name.startswith("backbone.body.")}
    return {f"backbone.{plain}": name for name, plain in body.items()}


def module_facts(there, here, shape):
    """A ConvModule: `conv` without bias, and `bn`."""
    facts = {f"{there}.conv.weight": (f"{here}.0.weight", shape)}
    for leaf in NORM:
        facts[f"{there}.bn.{leaf}"] = (f"{here}.1.{leaf}", () if leaf == "num_batches_tracked" else (shape[0],))
    return facts


def neck_facts(levels):
    facts = {}
    for block, level in enumerate(levels):
        ours = f"backbone.fpn.%s_blocks.{level - 2}"
        lateral_shape = (256, R50_CHANNELS[level], 1, 1)
        facts |= module_facts(f"neck.lateral_convs.{block}", ours % "inner", lateral_shape)
        facts |= module_facts(f"neck.fpn_convs.{block}", ours % "layer", (256, 256, 3, 3))
    return facts


def box_head_facts():
    facts = {}
    for index in range(4):
        there = f"roi_head.bbox_head.shared_convs.{index}"
        facts |= module_facts(there, f"box_head.{index}", (256, 256, 3, 3))
    facts["roi_head.bbox_head.shared_fcs.0.weight"] = ("box_head.5.weight", (1024, 256 * 7 * 7))
    facts["roi_head.bbox_head.shared_fcs.0.bias"] = ("box_head.5.bias", (1024,))
    return facts


@pytest.fixture(scope="module")
def exported(exportable_run, tmp_path_factory):
    run = exportable_run(architecture="fpn")
    file = export_run(run.path, tmp_path_factory.mktemp("mm") / "soco.pth", format="mmdetection").weights
    return run, file


def check(file, run, facts):
    weights = torch.load(file, weights_only=True)
    body = body_facts(run)
    assert weights.keys() == facts.keys() | body.keys()
    for name, (ours, shape) in facts.items():
        assert weights[name].shape == shape, name
        assert torch.equal(weights[name], run.tensors[ours]), name
    for name, ours in body.items():
        assert torch.equal(weights[name], run.tensors[ours]), name
    return weights


def test_mask_rcnn_gets_every_tensor_once(exported):
    run, file = exported
    facts = neck_facts((2, 3, 4, 5)) | box_head_facts()
    check(file, run, facts)
    used = [ours for ours, _ in facts.values()] + list(body_facts(run).values())
    assert sorted(used) == sorted(run.tensors)


def test_resnet_tensors_have_mmdetections_names(exported):
    """Its ResNet: conv1, bn1, and four stages of 3, 4, 6, 3 bottlenecks, with a downsample in the first of each."""
    run, _ = exported
    leaves = {"conv1.weight"} | {f"bn1.{leaf}" for leaf in NORM}
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            for conv in (1, 2, 3):
                leaves |= {f"{at}.conv{conv}.weight"} | {f"{at}.bn{conv}.{leaf}" for leaf in NORM}
            if block == 0:
                leaves |= {f"{at}.downsample.0.weight"} | {f"{at}.downsample.1.{leaf}" for leaf in NORM}
    assert body_facts(run).keys() == {f"backbone.{leaf}" for leaf in leaves}


def test_single_stage_pyramids_begin_at_p3(exported):
    run, file = exported
    weights = check(file.with_name("soco.single_stage.pth"), run, neck_facts((3, 4, 5)))
    first = weights["neck.lateral_convs.0.conv.weight"]
    assert first.shape[1] == 512  # C3's channels, not C2's
    # The 3x3 blocks of all levels have the same shape, so only values distinguish P3's from P2's.
    p2, p3 = (run.tensors[f"backbone.fpn.layer_blocks.{block}.0.weight"] for block in (0, 1))
    assert torch.equal(weights["neck.fpn_convs.0.conv.weight"], p3)
    assert not torch.equal(p2, p3)


def test_the_config_has_room_for_a_pretrained_rpn_head(exportable_run, tmp_path):
    """By default MMDetection's has 256 channels whatever the pyramid's width, and skips tensors that do not fit."""
    run = exportable_run(backbone="resnet18", fpn_channels=16, head_channels=16, representation_size=24, rpn_weight=1.0)
    file = export_run(run.path, tmp_path / "soco.pth", format="mmdetection").weights
    outputs, inputs = torch.load(file, weights_only=True)["rpn_head.rpn_conv.weight"].shape[:2]
    head = config(tmp_path / "soco-mmdetection" / "mask_rcnn_r18_fpn_1x.py")["model"]["rpn_head"]
    assert (head["feat_channels"], head["in_channels"]) == (outputs, inputs) == (16, 16)


def test_c4_exports_its_fifth_stage_as_the_shared_head(exportable_run, tmp_path):
    run = exportable_run(architecture="c4")
    file = export_run(run.path, tmp_path / "soco.pth", format="mmdetection").weights
    weights = torch.load(file, weights_only=True)
    head = {
        f"roi_head.shared_head.layer4.{name.removeprefix('box_head.')}": name
        for name in run.tensors
        if name.startswith("box_head.")
    }
    assert len(head) == 3 * 3 * 6 + 6  # three bottlenecks, and the first one's downsample
    facts = body_facts(run) | head
    assert weights.keys() == facts.keys()
    for name, ours in facts.items():
        assert torch.equal(weights[name], run.tensors[ours]), name
    assert [path.name for path in (tmp_path / "soco-mmdetection").iterdir()] == ["mask_rcnn_r50_c4_1x.py"]


def config(path):
    """A config's variables, with its one placeholder replaced by the config's folder, as MMEngine does."""
    variables = {}
    exec(path.read_text().replace("{{ fileDirname }}", str(path.parent)), variables)
    return variables


def test_the_configs_match_the_weights(exported):
    _, file = exported
    folder = file.parent / "soco-mmdetection"
    configs = {path.name: config(path) for path in folder.iterdir()}
    rcnns = {"mask_rcnn_r50_fpn_1x.py", "mask_rcnn_r50_fpn_2x.py"}
    assert configs.keys() == rcnns | {"retinanet_r50_fpn_1x.py", "fcos_r50_fpn_1x.py"}
    for name, variables in configs.items():
        model = variables["model"]
        assert model["data_preprocessor"] == {
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
        }
        backbone = model["backbone"]
        assert (backbone["style"], backbone["frozen_stages"], backbone["norm_eval"]) == ("pytorch", -1, False)
        assert backbone["norm_cfg"] == model["neck"]["norm_cfg"] == {"type": "SyncBN", "requires_grad": True}
        assert backbone["init_cfg"] is None
        assert model["neck"]["in_channels"] == list(R50_CHANNELS.values())
        assert "start_level" not in model["neck"]  # the base config's default: 0 for R-CNNs, 1 for the others
        wanted = file if name in rcnns else file.with_name("soco.single_stage.pth")
        assert (folder / variables["load_from"]).resolve() == wanted.resolve()
    head = configs["mask_rcnn_r50_fpn_1x.py"]["model"]["roi_head"]["bbox_head"]
    assert (head["num_shared_convs"], head["num_shared_fcs"], head["roi_feat_size"]) == (4, 1, 7)
    assert configs["retinanet_r50_fpn_1x.py"]["_base_"].startswith("mmdet::retinanet/")
    assert configs["fcos_r50_fpn_1x.py"]["_base_"].startswith("mmdet::fcos/")


def test_an_existing_second_file_is_not_replaced(exportable_run, tmp_path):
    run = exportable_run(backbone="resnet18", fpn_channels=16, head_channels=16, representation_size=24)
    (tmp_path / "soco.single_stage.pth").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"soco\.single_stage\.pth: exists"):
        export_run(run.path, tmp_path / "soco.pth", format="mmdetection")
    assert [path.name for path in tmp_path.iterdir()] == ["soco.single_stage.pth"]
    with pytest.raises(InputError, match=r"ends in \.pth"):
        export_run(run.path, tmp_path / "soco.pkl", format="mmdetection")
