"""Exporting over an earlier export removes what would contradict it, but nothing of the user's."""

import hashlib
import json
import re

import pytest

from socodet.exporting import export_run
from socodet.exporting.files import FrameworkFiles

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "head_channels": 24, "head_convs": 3, "representation_size": 40}
SUFFIXES = {"torchvision": ".pth", "mmdetection": ".pth", "timm": ".pth", "detectron2": ".pkl"}


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def export(run, folder, framework, **more):
    folder.mkdir(exist_ok=True)
    return export_run(run.path, folder / f"soco{SUFFIXES[framework]}", format=framework, **more)


@pytest.mark.parametrize(
    ("before", "after"), [("mmdetection", "timm"), ("timm", "torchvision"), ("torchvision", "mmdetection")]
)
def test_exporting_another_format_removes_files_of_the_first(exportable_run, tmp_path, before, after):
    run = exportable_run(**SMALL)
    export(run, tmp_path / "alone", after)
    export(run, tmp_path / "over", before)
    (tmp_path / "over" / "soco-notes.md").write_text("mine")
    export(run, tmp_path / "over", after, overwrite=True)
    assert files(tmp_path / "over") == files(tmp_path / "alone") | {"soco-notes.md": b"mine"}
    assert {path.name for path in (tmp_path / "over").iterdir() if path.is_dir()} <= {"soco-mmdetection"}


@pytest.mark.parametrize("framework", ["mmdetection", "detectron2"])
def test_configs_of_another_network_are_removed(exportable_run, tmp_path, framework):
    before, after = exportable_run(**SMALL), exportable_run(**SMALL | {"backbone": "resnet34"})
    export(after, tmp_path / "alone", framework)
    export(before, tmp_path / "over", framework)
    export(after, tmp_path / "over", framework, overwrite=True)
    there, alone = files(tmp_path / "over"), files(tmp_path / "alone")
    assert there.keys() == alone.keys()
    assert not [name for name in there if re.search("R_18|r18", name)]


def test_a_second_weights_file_is_removed_with_the_first(exportable_run, tmp_path):
    """C4 runs have no file for single-stage detectors."""
    export(exportable_run(**SMALL), tmp_path / "out", "mmdetection")
    assert (tmp_path / "out" / "soco.single_stage.pth").exists()
    c4 = exportable_run(architecture="c4", backbone="resnet18")
    export(c4, tmp_path / "out", "mmdetection", overwrite=True)
    assert files(tmp_path / "out").keys() == {
        "soco.pth",
        "soco-mmdetection.md",
        "soco-mmdetection/mask_rcnn_r18_c4_1x.py",
    }


def test_files_changed_or_added_since_are_kept_and_changed_ones_noted(exportable_run, tmp_path, capsys):
    run, out = exportable_run(**SMALL), tmp_path / "out"
    export(run, out, "mmdetection")
    card, mine, kept = (out / name for name in ("soco-mmdetection.md", "soco-mmdetection/my.py", "soco-mmdetection"))
    card.write_text(card.read_text().replace("must be stated", "is CC BY 4.0, and was stated"))
    mine.write_text("_base_ = 'mask_rcnn_r18_fpn_1x.py'\n")
    changed = kept / "mask_rcnn_r18_fpn_1x.py"
    changed.write_text(changed.read_text() + "max_epochs = 3\n")
    stay = {path: path.read_bytes() for path in (card, mine, changed)}
    export(run, out, "timm", overwrite=True)
    assert {path: path.read_bytes() for path in stay} == stay
    assert files(out).keys() == {"soco.pth", "soco-timm.md", *(str(path.relative_to(out)) for path in stay)}
    said = capsys.readouterr().err
    for path in (card, changed):
        assert len(re.findall(rf"^note: {re.escape(str(path))}: .*earlier export", said, re.MULTILINE)) == 1
    assert str(mine) not in said


def test_an_export_to_another_file_is_left_alone(exportable_run, tmp_path):
    """`soco.safetensors` shares its card with `soco.pth`, whose weights still exist."""
    run, out = exportable_run(**SMALL), tmp_path / "out"
    export(run, out, "torchvision")
    export(run, out, "detectron2")
    before = files(out)
    export_run(run.path, out / "soco.safetensors", overwrite=True)
    after = files(out)
    assert after.keys() == before.keys() | {"soco.safetensors"}
    assert {name for name in before if after[name] != before[name]} == {"soco-torchvision.md"}


def test_a_card_cannot_cause_other_files_to_be_removed(exportable_run, tmp_path):
    """A card from somebody else may list any file."""
    run, out = exportable_run(**SMALL), tmp_path / "out"
    export(run, out, "timm")
    precious, card = tmp_path / "precious.txt", out / "soco-timm.md"
    (out / "deep").mkdir()
    inner = out / "deep" / "precious.txt"
    for path in (precious, inner):
        path.write_bytes(b"precious")
    text = card.read_text()
    record = json.loads(re.search(r"\{.*\}(?= -->\n\Z)", text)[0])
    digest = hashlib.sha256(b"precious").hexdigest()
    more = {"../precious.txt": digest, str(precious): digest, "deep/precious.txt": digest}
    card.write_text(text.replace(json.dumps(record), json.dumps(record | more)))
    export(run, out, "torchvision", overwrite=True)
    assert precious.exists()
    assert inner.exists()
    for nonsense in ("{]", "{}", '{"soco.pth": 3}', "{" * 10**5 + "}"):
        card.write_text(f"# mine\n<!-- written by socodet export: {nonsense} -->\n")
        export(run, out, "torchvision", overwrite=True)
        assert card.exists()


def test_a_failing_call_removes_nothing(exportable_run, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    run, out = exportable_run(**SMALL), tmp_path / "out"
    export(run, out, "mmdetection")
    before = files(out)
    monkeypatch.setattr("socodet.exporting.files.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        export(run, out, "timm", overwrite=True)
    assert files(out) == before


def test_in_a_folder_of_transformers_files_of_another_model_do_not_stay(tmp_path):
    out = tmp_path / "out"

    def write(*configs, card=out / "README.md"):
        weights = {out / "model.safetensors": " ".join(configs).encode()}
        texts = {out / name: f"{{{name!r}}}" for name in configs}
        FrameworkFiles(weights, {}, "", texts).write(card, "# A card\n", overwrite=True)

    write("config.json", "preprocessor_config.json")
    (out / "notes.md").write_text("mine")
    write("config.json")
    assert files(out).keys() == {"README.md", "config.json", "model.safetensors", "notes.md"}
    write(card=out / "model-timm.md")
    assert files(out).keys() == {"model-timm.md", "model.safetensors", "notes.md"}
    write("config.json")
    assert files(out).keys() == {"README.md", "config.json", "model.safetensors", "notes.md"}
