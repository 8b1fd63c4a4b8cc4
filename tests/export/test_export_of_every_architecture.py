"""Everything a run pretrained is in the file exactly once and unchanged, or reported as left out."""

import pickle
from collections import Counter

import pytest
import torch

from socodet.deployment.export import export
from socodet.errors import InputError
from socodet.exporting import export_run

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "head_channels": 16, "representation_size": 24}
PYRAMID = [f"P{level}'s {kind} convolution" for kind in ("lateral", "output") for level in (2, 3, 4, 5)]
HEAD = ["box head"]


def exported_tensors(file):
    if file.suffix == ".pkl":
        return {name: torch.from_numpy(array) for name, array in pickle.loads(file.read_bytes())["model"].items()}
    return torch.load(file, weights_only=True)


def left_out(tmp_path, framework, file):
    """What the card lists as left out of a file."""
    lines = (tmp_path / f"soco-{framework}.md").read_text().splitlines()
    (at,) = (index for index, line in enumerate(lines) if line.startswith(f"- `{file}`: "))
    found = lines[at + 1].partition("pretrained, but not in it: ")[2]
    return found.split(", ") if found else []


@pytest.mark.parametrize("architecture", ["fpn", "fpn_no_head", "c4", "c5", "image"])
@pytest.mark.parametrize(("framework", "suffix"), [("detectron2", ".pkl"), ("mmdetection", ".pth"), ("timm", ".pth")])
def test_nothing_is_lost_silently(exportable_run, tmp_path, architecture, framework, suffix):
    if (architecture, framework) == ("c4", "detectron2"):
        run = exportable_run(architecture="c4")
    else:
        run = exportable_run(architecture=architecture, **SMALL)
    file = export_run(run.path, tmp_path / f"soco{suffix}", format=framework).weights
    pyramid = PYRAMID if architecture.startswith("fpn") else []
    head = HEAD if architecture == "fpn" else []
    expected = {file: ["pyramid"] * bool(pyramid) + head if framework == "timm" else []}
    if framework == "mmdetection" and architecture != "c4":
        not_there = [name for name in pyramid if name.startswith("P2")] + head
        expected[tmp_path / "soco.single_stage.pth"] = not_there
    for path, missing in expected.items():
        there = Counter(run.digest(value.numpy()) for value in exported_tensors(path).values())
        ours = Counter(run.digests())
        assert not there - ours, "something that the run does not have"
        assert bool(ours - there) == bool(missing)
        assert set(left_out(tmp_path, framework, path.name)) == set(missing)


def test_only_fpn_runs_can_be_exported_to_torchvision(exportable_run, tmp_path):
    with pytest.raises(InputError, match="only for fpn"):
        export_run(exportable_run(architecture="c5", **SMALL).path, tmp_path / "soco.pth")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_card_or_config_is_not_replaced(exportable_run, tmp_path):
    run = exportable_run(**SMALL)
    (tmp_path / "soco-timm.md").write_text("precious")
    with pytest.raises(InputError, match=r"soco-timm\.md: exists"):
        export_run(run.path, tmp_path / "soco.pth", format="timm")
    assert not (tmp_path / "soco.pth").exists()
    export_run(run.path, tmp_path / "soco.pth", format="timm", overwrite=True)
    assert (tmp_path / "soco-timm.md").read_text().startswith("# resnet18 pretrained by SoCo, for timm")


@pytest.mark.parametrize(("flag", "value"), [("model", "detr"), ("images", "images"), ("bn_images", 4)])
def test_flags_for_transformers_are_refused_for_other_formats(exportable_run, tmp_path, flag, value):
    with pytest.raises(InputError, match=f"--{flag.replace('_', '-')}.*leave"):
        export(exportable_run(**SMALL).path, tmp_path / "soco.pth", format="timm", **{flag: value})
    assert list(tmp_path.iterdir()) == []
