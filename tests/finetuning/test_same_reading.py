"""Every command reads a run's multi-band and high-bit-depth images in the same way."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from narrow_models import NARROW
from PIL import Image

import socodet
from socodet.cli import main
from socodet.detection import inference
from socodet.errors import InputError
from socodet.finetuning.evaluate import evaluate
from socodet.finetuning.finetune import finetune
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.reading import PixelReading, PixelSettings, read_images_as, read_images_like
from socodet.images.source import open_images, read_pixels, reading_of
from socodet.prediction.predict import predict
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import recipe
from socodet.probing import probe as probing
from socodet.proposals.settings import ProposalSettings
from socodet.reports import images as reporting
from socodet.reports.runs import read_records
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

QUIET = {"execution": ExecutionSettings(device="cpu", workers=0), "show_progress": False}
BANDS, TOP = (5, 3, 1), 4000
READING = PixelReading(white=4095, bands=BANDS)


def scene(seed, top=TOP):
    """(64, 80, 5) with 12 bits: a bright rectangle on a ramp, each band with a different brightness."""
    ramp = np.linspace(0.1, 0.4, 80)[None, :, None] * np.linspace(0.5, 1, 5)
    values = np.repeat(ramp, 64, axis=0)
    values[10 + seed : 50, 20:60] = np.linspace(0.6, 1, 5)
    return np.rint(values * top).astype(np.uint16)


def as_seen(values, white=4095):
    return np.rint(values[..., [band - 1 for band in BANDS]] / white * 255)


def write(folder, count=4, top=TOP, **options):
    folder.mkdir(parents=True)
    options = {"photometric": "minisblack", "planarconfig": "contig"} | options
    for number in range(count):
        tifffile.imwrite(folder / f"{number}.tif", scene(number, top), **options)
    images = [{"id": n + 1, "file_name": f"{n}.tif", "width": 80, "height": 64} for n in range(count)]
    notes = [{"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": [20, 10 + n, 40, 40 - n]} for n in range(count)]
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "field"}]}
    for part in ("train", "val"):
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bands") / "set")


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
    """The same kind of images, but using only 9 bits."""
    return write(tmp_path_factory.mktemp("dark") / "set", top=400)


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    short = replace(recipe("tiny").training, batch_size=4, epochs=1, warmup_epochs=0.0)
    chosen = replace(recipe("tiny"), model=NARROW, training=short, proposals=ProposalSettings(method="grid"))
    with read_images_as(PixelSettings(bands=BANDS)):
        return pretrain(data, chosen, tmp_path_factory.mktemp("run") / "run", **QUIET).run


@pytest.fixture(scope="module")
def finetuned(data, pretrained, tmp_path_factory):
    settings = FinetuneSettings("retinanet_r50_fpn", batch_size=2, size=64, precise_bn=1, iterations=1)
    return finetune(data, tmp_path_factory.mktemp("run") / "run", settings, init=pretrained, **QUIET).run


def test_detector_inherits_the_bands_of_its_init(pretrained, finetuned):
    assert RunFolder(pretrained).pixel_reading() == READING
    assert RunFolder(finetuned).pixel_reading() == READING


@pytest.fixture
def seen(monkeypatch):
    """The images that a detector is given."""
    shown = []
    detect_each = inference.detect_each

    def spy(network, read, *args, **kwargs):
        def reading(index):
            shown.append(read(index))
            return shown[-1]

        return detect_each(network, reading, *args, **kwargs)

    monkeypatch.setattr(inference, "detect_each", spy)
    for place in ("prediction.predict", "finetuning.detector"):
        monkeypatch.setattr(f"socodet.{place}.detect_each", spy)
    return shown


@pytest.mark.parametrize("top", [TOP, 400])
def test_detector_sees_new_images_scaled_like_its_training_images(finetuned, data, dark, top, seen, tmp_path):
    """Even if their own values suggest another range."""
    images = data if top == TOP else dark
    predict(finetuned, images, tmp_path / "found", **QUIET)
    evaluate(finetuned, images, **QUIET)
    socodet.load_detector(finetuned, device="cpu").predict([images / "0.tif"])
    assert len(seen) == 9
    for number, pixels in enumerate(seen):
        np.testing.assert_allclose(pixels, as_seen(scene(number % 4, top)), atol=1)


def test_mismatched_value_range_is_reported(tmp_path, capsys):
    with read_images_like(READING):
        open_images(write(tmp_path / "set", top=400))
    assert "values up to 400 (4 sampled); 4,095 counts as white, as in the run" in capsys.readouterr().err


def test_flags_override_the_runs_reading(finetuned, data, seen, tmp_path):
    flags = ["--bands", "1", "--value-range", "8000", "--device", "cpu", "--workers", "0"]
    main(["predict", str(finetuned), str(data), "--output", str(tmp_path / "found"), *flags])
    np.testing.assert_allclose(seen[0][..., 0], np.rint(scene(0)[..., 0] / 8000 * 255), atol=1)
    noted = json.loads((tmp_path / "found" / "predict.json").read_text())
    assert noted["reading"]["bands"] == [1]
    with pytest.raises(SystemExit):  # these predictions would differ
        main(["predict", str(finetuned), str(data), "--output", str(tmp_path / "found"), *flags[4:]])


def test_probe_and_report_see_what_the_run_saw(pretrained, dark, monkeypatch):
    opened = []
    monkeypatch.setattr(probing, "probe_encoder", lambda encoder, sets, *args, **kwargs: opened.append(sets))
    probing.probe(pretrained, dark, device="cpu", show_progress=False)
    for part in (opened[0].train, opened[0].val):
        np.testing.assert_allclose(part.pixels(0), as_seen(scene(0, 400)), atol=1)
    source, _ = reporting.open_run_images(read_records([pretrained]), dark)
    np.testing.assert_allclose(read_pixels(source, 1), as_seen(scene(1, 400)), atol=1)


def test_training_on_brighter_images_raises_white(tmp_path):
    folder = write(tmp_path / "bright", top=60_000)
    with read_images_like(READING, widened=True):
        assert reading_of(open_images(folder)) == replace(READING, white=65535)
    with read_images_like(READING):
        assert reading_of(open_images(folder)) == READING
    Image.new("RGB", (80, 64)).save(folder / "plain.png")
    with read_images_like(PixelReading()), read_images_as(PixelSettings(bands=BANDS)):
        assert reading_of(open_images(folder)).white == 65535  # a run of 8-bit images has no say on these


def test_pixel_limit_applies_wherever_images_are_read(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["convert", str(data), "--check", "--max-pixels", "1000"])
    assert re.search(r"none of its images.* 4 × .* more than 1,000", capsys.readouterr().err)
    with read_images_as(PixelSettings(max_pixels=1000)), pytest.raises(InputError, match="none of its 4 images"):
        finetune(data, tmp_path / "run", FinetuneSettings("retinanet_r50_fpn", iterations=1), model=NARROW, **QUIET)
