"""A checkpoint of the method's public code, or any weights file, exports like a run with the same weights."""

import hashlib
import re
import resource
from contextlib import contextmanager

import pytest
import safetensors.torch
import timm
import torch
from narrow_models import narrow_resnet18
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.exporting.transformers import saved_files
from socodet.weights.formats import backbone, public_code, run_of

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "head_channels": 24, "head_convs": 3, "representation_size": 40}
SUFFIXES = {"torchvision": ".pth", "detectron2": ".pkl", "mmdetection": ".pth", "timm": ".pth"}


def checkpoint(run, names, file):
    """The run's weights under the given names, and its target network's with the opposite sign."""
    own = run_of([f"online.encoder.{name}" for name in run.tensors])
    model = {names.from_plain(own.to_plain(f"online.encoder.{name}")): value for name, value in run.tensors.items()}
    model.pop(None, None)
    target = {name.replace("encoder.", "encoder_k."): -value for name, value in model.items() if ".encoder." in name}
    torch.save({"model": model | target, "epoch": 100}, file)
    return file


def written(folder):
    """The contents of every file except the card."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return {str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"") for path in files}


@pytest.mark.parametrize("framework", SUFFIXES)
def test_a_public_checkpoint_exports_like_a_run(exportable_run, tmp_path, framework):
    run = exportable_run(pooled_size=5, **SMALL)
    file = checkpoint(run, public_code("module."), tmp_path / "ckpt_epoch_100.pth")
    of_run, of_file = tmp_path / "run", tmp_path / "file"
    for source, folder in ((run.path, of_run), (file, of_file)):
        folder.mkdir()
        export_run(source, folder / f"soco{SUFFIXES[framework]}", format=framework)
    assert written(of_file).keys() == written(of_run).keys()
    for name, content in written(of_file).items():
        assert content == written(of_run)[name], name
    card = (of_file / f"soco-{framework}.md").read_text()
    assert card.startswith(f"# ckpt_epoch_100.pth for {framework}\n")
    assert f"`ckpt_epoch_100.pth`, sha256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`" in card
    assert "its names those of the public code" in card
    assert "Architecture fpn, backbone resnet18" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("framework", ["detectron2", "mmdetection"])
def test_a_public_c4_checkpoint_exports_its_fifth_stage_as_the_head(exportable_run, tmp_path, framework):
    run = exportable_run(architecture="c4")
    file = checkpoint(run, public_code("module."), tmp_path / "ckpt.pth")
    of_run, of_file = tmp_path / "run", tmp_path / "file"
    for source, folder in ((run.path, of_run), (file, of_file)):
        folder.mkdir()
        export_run(source, folder / f"soco{SUFFIXES[framework]}", format=framework)
    assert written(of_file) == written(of_run)


@pytest.mark.parametrize("fields", [SMALL, {"architecture": "c4"}], ids=["FPN", "C4"])
def test_an_export_for_mmdetection_exports_like_its_run(exportable_run, tmp_path, fields):
    run = exportable_run(**fields)
    file = export_run(run.path, tmp_path / "mm.pth", format="mmdetection").weights
    of_run, of_file = tmp_path / "run", tmp_path / "file"
    for source, folder in ((run.path, of_run), (file, of_file)):
        folder.mkdir()
        export_run(source, folder / "soco.pkl", format="detectron2")
    assert written(of_file) == written(of_run)


def test_a_backbone_in_a_wrapper_is_exported_without_the_projection_head(exportable_run, tmp_path):
    run = exportable_run(architecture="c5", **SMALL)
    file = checkpoint(run, backbone("module.encoder_q."), tmp_path / "moco.pth")
    content = torch.load(file)
    content["model"]["module.encoder_q.fc.0.weight"] = torch.ones(3)
    torch.save(content, file)
    weights = torch.load(export_run(file, tmp_path / "timm.pth", format="timm").weights, weights_only=True)
    body = {name.removeprefix("backbone.body."): value for name, value in run.tensors.items()}
    assert weights.keys() == body.keys()
    assert all(torch.equal(value, body[name]) for name, value in weights.items())


@pytest.mark.parametrize("framework", ["detectron2", "mmdetection"])
def test_half_precision_and_parameters_are_exported_as_float32(tmp_path, framework):
    state = narrow_resnet18().state_dict()
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
    half["conv1.weight"] = torch.nn.Parameter(half["conv1.weight"])
    torch.save(half, tmp_path / "half.pth")
    torch.save({name: value.detach().to(state[name].dtype) for name, value in half.items()}, tmp_path / "full.pth")
    for name in ("half", "full"):
        (tmp_path / f"of_{name}").mkdir()
        export_run(tmp_path / f"{name}.pth", tmp_path / f"of_{name}" / f"soco{SUFFIXES[framework]}", format=framework)
    assert written(tmp_path / "of_half") == written(tmp_path / "of_full")


def wider(tensors):
    return tensors | {name: tensors[name].repeat_interleave(2, 0) for name in ["layer1.0.conv1.weight"]}


def of_a_stem_of_three(tensors):
    """resnet18d's tensors."""
    rest = {name: value for name, value in tensors.items() if name != "conv1.weight"}
    return rest | {f"conv1.{place}.weight": tensors["conv1.weight"] for place in (0, 3, 6)}


def squeezed(tensors):
    """seresnet18's tensors."""
    return tensors | {"layer1.0.se.fc1.weight": torch.ones(2, 8, 1, 1)}


def of_group_norm(tensors):
    return {name: value for name, value in tensors.items() if ".running_" not in name and "num_batches" not in name}


@pytest.mark.parametrize(
    ("other", "tensor"),
    [
        (wider, "layer1.0.conv1.weight"),
        (of_a_stem_of_three, "conv1.0.weight"),
        (squeezed, "layer1.0.se.fc1.weight"),
        (of_group_norm, "bn1.running_mean"),
    ],
)
def test_variants_of_resnets_are_not_exported_as_plain_resnets(tmp_path, other, tensor):
    torch.save(other(narrow_resnet18().state_dict()), tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth: .*\b{re.escape(tensor)} .*resnet18; .*run's folder") as error:
        export_run(tmp_path / "other.pth", tmp_path / "out.pth", format="timm")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.pth").exists()


@pytest.fixture
def full_disk():
    """A context in which no file can exceed that many bytes."""

    @contextmanager
    def full(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


@pytest.mark.parametrize("framework", SUFFIXES)
def test_a_call_can_be_repeated_after_a_full_disk(exportable_run, tmp_path, full_disk, framework):
    run = exportable_run(**SMALL).path
    output = tmp_path / "new" / f"soco{SUFFIXES[framework]}"
    with pytest.raises(OSError, match="too large"), full_disk(20_000):
        export_run(run, output, format=framework)
    assert not list(tmp_path.iterdir())
    export_run(run, output, format=framework)
    whole = written(tmp_path)
    with pytest.raises(OSError, match="too large"), full_disk(20_000):
        export_run(run, output, format=framework, overwrite=True)
    assert written(tmp_path) == whole


def test_an_output_that_is_a_link_is_written_through(exportable_run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "soco.pth").symlink_to("there/weights")
    export_run(exportable_run(**SMALL).path, tmp_path / "soco.pth")
    assert (tmp_path / "soco.pth").is_symlink()
    assert torch.load(tmp_path / "there" / "weights", weights_only=True)


def test_a_full_disk_is_one_line_with_transformers(tmp_path, full_disk):
    class Model:
        def save_pretrained(self, folder):
            safetensors.torch.save_file({"a": torch.zeros(9000)}, f"{folder}/model.safetensors")

    with pytest.raises(OSError, match="too large"), full_disk(20_000):
        saved_files(tmp_path, Model())


def test_files_that_cannot_be_exported_are_refused(exportable_run, tmp_path):
    settings = exportable_run(**SMALL).settings
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "convnext.pth")
    with pytest.raises(InputError, match=r"convnext\.pth: holds no ResNet.*give its run's folder"):
        export_run(tmp_path / "convnext.pth", tmp_path / "out.pth", format="timm")
    detector = new_detector("mask_rcnn_fpn", settings, 3).state_dict()
    detector["backbone.fpn.inner_blocks.0.0.bias"] = torch.zeros(16)
    torch.save(detector, tmp_path / "plain.pth")
    with pytest.raises(InputError, match=r"plain\.pth: its pyramid or box head has no batch norm"):
        export_run(tmp_path / "plain.pth", tmp_path / "out.pth")
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        export_run(tmp_path / "absent.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_an_incomplete_pyramid_or_box_head_is_not_exported(exportable_run, tmp_path):
    run = exportable_run(**SMALL)
    export_run(run.path, tmp_path / "mm.pth", format="mmdetection")
    with pytest.raises(InputError, match=r"mm\.single_stage\.pth: its pyramid has no P2"):
        export_run(tmp_path / "mm.single_stage.pth", tmp_path / "out.pkl", format="detectron2")
    pyramid = new_detector("faster_rcnn_fpn", run.settings, 3).state_dict()
    pyramid = {name: value for name, value in pyramid.items() if name.startswith("backbone.")}
    for widths in ([], [24, 24]):
        head = FastRCNNConvFCHead((16, 7, 7), widths, [40, 40] if widths else [40], torch.nn.BatchNorm2d).state_dict()
        torch.save(pyramid | {f"roi_heads.box_head.{name}": value for name, value in head.items()}, tmp_path / "d.pth")
        with pytest.raises(InputError, match="convolutions and one fully connected"):
            export_run(tmp_path / "d.pth", tmp_path / "out.pkl", format="detectron2")
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize("framework", ["torchvision", "detectron2", "mmdetection"])
def test_a_call_killed_before_writing_the_weights_can_be_repeated(exportable_run, tmp_path, framework):
    """The weights are written last, so only the card and the configs are left behind."""
    run, out = exportable_run(pooled_size=5, **SMALL), tmp_path / "out" / f"soco{SUFFIXES[framework]}"
    export_run(run.path, out, format=framework)
    whole = written(out.parent)
    for weights in out.parent.glob(f"*{out.suffix}"):
        weights.unlink()
    export_run(run.path, out, format=framework)
    assert written(out.parent) == whole
    out.unlink()
    card = out.with_name(f"soco-{framework}.md")
    card.write_text("mine")
    with pytest.raises(InputError, match=r"\.md: exists"):
        export_run(run.path, out, format=framework)
    assert card.read_text() == "mine"
