"""Damaged files for every reader: read, or refused in one line; never a crash, a hang or unbounded memory.

SOCODET_FUZZ is the number of files per reader (100; `make fuzz` uses 100,000); SOCODET_FUZZ_SEED selects them.
"""

import base64
import io
import json
import os
import random
import signal
import tarfile
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from mutation import mutated
from photograph_sets import coco_file
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.decode import decode_image, image_size
from socodet.images.photographs import photographs
from socodet.images.reading import PixelReading
from socodet.images.source import open_images
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.runtime.files import read_note
from socodet.training.checkpoint_file import read_state, write_state
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile

COUNT = int(os.environ.get("SOCODET_FUZZ", "100"))
SEED = os.environ.get("SOCODET_FUZZ_SEED", "0")
RECORD = os.environ.get("SOCODET_FUZZ_RECORD")
SECONDS = 20
"""Time limit for one file."""
MEBIBYTES = 500
"""How much a reader's files may add to the memory in use afterwards."""
READ = "read"
PIXELS = 4_000_000


class Images:
    """The image decoders, and reading an image's size without decoding."""

    name = "image"
    FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

    def __init__(self, folder):
        image = Image.open(photographs() / "chelsea.jpg").resize((40, 30))
        self.seeds = []
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"):
            for format_ in self.FORMATS:
                written = io.BytesIO()
                try:
                    converted = Image.fromarray(np.arange(300, dtype=np.uint16).reshape(15, 20) * 200)
                    (converted if mode == "I;16" else image.convert(mode)).save(written, format_)
                except (OSError, KeyError, ValueError):  # the format lacks this mode
                    continue
                self.seeds.append(written.getvalue())
        exif = Image.Exif()
        exif[0x0112] = 6
        written = io.BytesIO()
        image.save(written, "JPEG", exif=exif, progressive=True)
        self.seeds.append(written.getvalue())
        written = io.BytesIO()
        values = np.arange(1200, dtype=np.uint16).reshape(15, 20, 4) * 50
        with tifffile.TiffWriter(written) as writer:
            writer.write(np.asarray(image), photometric="rgb", subfiletype=1)  # a thumbnail
            writer.write(values, photometric="rgb", extrasamples=["assocalpha"])
        self.seeds.append(written.getvalue())
        text, written = PngInfo(), io.BytesIO()
        text.add_text("comment", "words " * 20, zip=True)
        Image.fromarray(values[..., 0]).save(written, "PNG", pnginfo=text, transparency=100, exif=exif)
        self.seeds.append(written.getvalue())

    def read(self, data):
        image_size(data, PIXELS)
        pixels = decode_image(data, reading=PixelReading(max_pixels=PIXELS))
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


class FileReader:
    """A reader that takes a file's path."""

    suffix = ""

    def __init__(self, folder):
        self.file = folder / f"file{self.suffix}"

    def read(self, data):
        self.file.write_bytes(data)
        self.open(self.file)


class Shards(FileReader):
    name, suffix = "tar shard", ".tar"

    def __init__(self, folder):
        super().__init__(folder)
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as tar:
            for name in ("a.jpg", "b" * 150 + ".jpg", "c.txt"):
                entry = tarfile.TarInfo(name)
                entry.size = 700
                tar.addfile(entry, io.BytesIO(bytes(700)))
        self.seeds = [written.getvalue()]

    def open(self, file):
        for index in file.parent.glob(f"*{file.name}.*"):
            index.unlink()
        source = open_images(file)
        for index in range(min(3, len(source))):
            with suppress(OSError):
                source.read(index)


class Tables(FileReader):
    name, suffix = "proposal table", ".parquet"

    def __init__(self, folder):
        super().__init__(folder)
        propose(photographs(), folder / "good.parquet", workers=1, show_progress=False)
        self.seeds = [(folder / "good.parquet").read_bytes()]

    def open(self, file):
        table = ProposalTable.read(file)
        for key in table.keys[:3]:
            table.boxes(key)


class Annotations(FileReader):
    name, suffix = "COCO and LVIS annotations", ".json"

    def __init__(self, folder):
        super().__init__(folder)
        self.seeds = [coco_file(folder / "good.json", masks=masks).read_bytes() for masks in (True, False)]
        lvis = json.loads(self.seeds[0])
        for image in lvis["images"]:
            image |= {"neg_category_ids": [10], "not_exhaustive_category_ids": [20]}
        for category in lvis["categories"]:
            category |= {"frequency": "c", "image_count": 3, "synset": "a.n.01"}
        self.seeds.append(json.dumps(lvis).encode())

    def open(self, file):
        for image in open_detection_set(file).images:
            assert np.isfinite(image.boxes).all()


class Labels(FileReader):
    """YOLO label files and data.yaml."""

    name = "YOLO"

    def __init__(self, folder):
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        (folder / "images/a.jpg").write_bytes((photographs() / "chelsea.jpg").read_bytes())
        self.labels, self.yaml = folder / "labels/a.txt", folder / "data.yaml"
        self.seeds = [
            b"Y" + b"path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: cat\n  1: dog\n",
            b"L" + b"0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.9 0.2 0.5 0.8\n",
        ]
        self.good = {seed[:1]: seed[1:] for seed in self.seeds}

    def read(self, data):
        self.yaml.write_bytes(data[1:] if data[:1] == b"Y" else self.good[b"Y"])
        self.labels.write_bytes(data[1:] if data[:1] == b"L" else self.good[b"L"])
        for image in open_detection_set(self.yaml, split="train").images:
            assert np.isfinite(image.boxes).all()


class Voc(FileReader):
    name = "VOC"

    def __init__(self, folder):
        (folder / "Annotations").mkdir()
        (folder / "a.jpg").write_bytes((photographs() / "chelsea.jpg").read_bytes())
        self.folder, self.file = folder, folder / "a.xml"
        box = b"<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>200</xmax><ymax>150.5</ymax></bndbox>"
        self.seeds = [
            b'<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.jpg</filename><size><width>400</width>'
            b"<height>266</height><depth>3</depth></size><object><name>cat</name><difficult>0</difficult>"
            + box
            + b"</object></annotation>"
        ]

    def open(self, file):
        for image in open_detection_set(self.folder, split="all").images:
            assert np.isfinite(image.boxes).all()


class LabelMe(FileReader):
    name = "LabelMe"

    def __init__(self, folder):
        (folder / "a.jpg").write_bytes((photographs() / "chelsea.jpg").read_bytes())
        self.folder, self.file = folder, folder / "a.json"
        written = io.BytesIO()
        Image.fromarray(np.ones((20, 30), np.uint8)).save(written, "PNG")
        mask = base64.b64encode(written.getvalue()).decode()
        corners = [[10, 20], [39, 39]]
        shapes = [
            {"label": "cat", "points": corners, "shape_type": "rectangle", "group_id": None},
            {"label": "cat", "points": [*corners, [50.5, 30]], "group_id": 1},
            {"label": "cat", "points": corners, "shape_type": "circle", "group_id": 1},
            {"label": "dog", "points": corners, "shape_type": "mask", "mask": mask},
        ]
        content = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 266, "imageWidth": 400}
        self.seeds = [json.dumps(content).encode()]

    def open(self, file):
        for image in open_detection_set(self.folder, split="all").images:
            assert np.isfinite(image.boxes).all()


class Via(FileReader):
    name = "VIA"

    def __init__(self, folder):
        (folder / "a.jpg").write_bytes((photographs() / "chelsea.jpg").read_bytes())
        self.folder, self.file = folder, folder / "set.json"
        shapes = [
            {"name": "rect", "x": 10, "y": 20, "width": 100, "height": 90},
            {"name": "polygon", "all_points_x": [10, 60.5, 60], "all_points_y": [20, 20, 50]},
            {"name": "ellipse", "cx": 200, "cy": 100, "rx": 40, "ry": 10, "theta": 0.5},
        ]
        regions = [{"shape_attributes": shape, "region_attributes": {"animal": "cat"}} for shape in shapes]
        listed = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": regions, "file_attributes": {}}}
        numbered = {"a.jpg9": listed["a.jpg9"] | {"regions": dict(enumerate(regions))}}
        self.seeds = [json.dumps(one).encode() for one in ({"_via_img_metadata": listed}, listed, numbered)]

    def open(self, file):
        for image in open_detection_set(self.folder, split="all").images:
            assert np.isfinite(image.boxes).all()


class Cvat(Via):
    name = "CVAT's XML"

    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "annotations.xml"
        shapes = (
            '<box label="cat" occluded="0" xtl="10" ytl="20" xbr="60.5" ybr="90" rotation="30.5" z_order="0"></box>'
            '<polygon label="cat" points="10,20;60.5,20;60,50" group_id="1"></polygon>'
            '<mask label="cat" rle="1, 2, 2, 1, 2, 1, 1" left="7" top="9" width="5" height="2" group_id="1"></mask>'
            '<ellipse label="dog" cx="200" cy="100" rx="40" ry="10" rotation="90"></ellipse>'
        )
        named = [
            f'<image id="0" name="a.jpg"{more} width="400" height="266">{shapes}</image>'
            for more in ("", ' subset="."')
        ]
        meta = "<meta><task><labels><label><name>cat</name><type>any</type></label></labels></task></meta>"
        begin = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
        self.seeds = [f"{begin}{meta}{one}</annotations>".encode() for one in (named[0], "".join(named))]


class LabelStudio(Via):
    name = "Label Studio's JSON"

    def __init__(self, folder):
        super().__init__(folder)
        values = [
            {"x": 10, "y": 20, "width": 25, "height": 50.5, "rotation": 30, "rectanglelabels": ["cat"]},
            {"points": [[10, 20], [60.5, 20], [60, 50]], "closed": True, "polygonlabels": ["cat"]},
            {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0, "ellipselabels": ["dog"]},
        ]
        sizes = {"original_width": 400, "original_height": 266, "image_rotation": 0}
        results = [sizes | {"value": value, "id": str(k), "from_name": "label"} for k, value in enumerate(values)]
        written = {"id": 5, "result": results, "was_cancelled": False, "created_at": "2024-05-02T10:00:00Z"}
        long = {"id": 1, "data": {"image": "/data/upload/1/1a2b3c4d-a.jpg"}, "annotations": [written, written]}
        known = {"annotator": 1, "annotation_id": 5, "created_at": "2024-05-02T10:00:00Z"}
        short = {"image": "a.jpg", "id": 1, "label": [value | sizes for value in values]} | known
        self.seeds = [json.dumps([one]).encode() for one in (long, short)]


class BoxTables(Via):
    name = "table of boxes"

    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "boxes.csv"
        header = "filename,width,height,class,xmin,ymin,xmax,ymax"
        line = "a.jpg,400,266,cat,10,20,200,150.5"
        seeds = [f"{header}\n{line}\n{line}\n", "\ufeffa.jpg;1;2;50;60;cat\r\na.jpg;;;;;\r\n", f"{header}\r{line}\r"]
        self.seeds = [*(seed.encode() for seed in seeds), seeds[0].encode("utf-16")]


class Checkpoints(FileReader):
    name, suffix = "checkpoint", ".pt"

    def __init__(self, folder):
        super().__init__(folder)
        write_state(folder / "good.pt", {"step": 1, "model": {"a": torch.ones(5), "b": torch.zeros(2, 3)}})
        torch.save({"a": torch.ones(5)}, folder / "old.pt", _use_new_zipfile_serialization=False)
        self.seeds = [(folder / name).read_bytes() for name in ("good.pt", "old.pt")]

    def open(self, file):
        try:
            read_state(file)
        except ValueError:
            WeightsFile(file).read()


class Safetensors(FileReader):
    name, suffix = "safetensors", ".safetensors"

    def __init__(self, folder):
        super().__init__(folder)
        self.seeds = [safetensors.torch.save({"a": torch.ones(5), "b": torch.zeros(2, 3)})]

    def open(self, file):
        WeightsFile(file).read()


class Notes(FileReader):
    name, suffix = "run.json", ".json"

    def __init__(self, folder):
        self.run = RunFolder(folder)
        self.file = folder / "run.json"
        self.run.write_description({"recipe": {"finetuning": _as_json(FinetuneSettings("faster_rcnn_fpn", "voc_24k"))}})
        self.seeds = [self.file.read_bytes()]

    def open(self, file):
        read_note(file)
        self.run.settings(FinetuneSettings, "finetuning")


def _as_json(settings):
    from socodet.runtime.serialization import to_json

    return to_json(settings)


READERS = (
    Images,
    Shards,
    Tables,
    Annotations,
    Labels,
    Voc,
    LabelMe,
    Via,
    Cvat,
    LabelStudio,
    BoxTables,
    Checkpoints,
    Safetensors,
    Notes,
)


class HangError(BaseException):
    """No reader mistakes this for a damaged file."""


@contextmanager
def time_limit(seconds):
    """Raises HangError inside the block if it takes longer."""

    def ring(*_):
        raise HangError(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory():
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def outcome(reader, data):
    """READ, or the reason for refusing; with a traceback if the error is not one of the project's."""
    try:
        with time_limit(SECONDS):
            reader.read(data)
    except InputError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return READ


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_or_refused_in_one_line(reader, tmp_path):
    reader = reader(tmp_path)
    assert any(outcome(reader, seed) == READ for seed in reader.seeds)
    began, used = time.monotonic(), memory()
    refused, grown = 0, 0.0
    for number in range(COUNT):
        found = outcome(reader, mutated(random.Random(f"{SEED} {reader.name} {number}"), reader.seeds))
        assert "\n" not in found, f"SOCODET_FUZZ_SEED={SEED}, file {number}: {found}"
        refused += found != READ
        grown = max(grown, memory() - used)
    assert 0 < refused < COUNT
    assert grown < MEBIBYTES
    if RECORD:
        line = {"reader": reader.name, "files": COUNT, "refused": refused, "MiB": round(grown), "seed": SEED}
        with open(RECORD, "a") as file:
            file.write(json.dumps(line | {"seconds": round(time.monotonic() - began)}) + "\n")
