"""A malicious file of each kind that may come from the internet: refused in one line, or what is bad in it left out.

None runs code, which would write a sentinel file, and nothing is written outside of the folder that a command is given.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from socodet.cli import main
from socodet.detection.datasets import Problem, open_detection_set
from socodet.errors import InputError, UnreadableImageError
from socodet.export.card import in_markdown
from socodet.images import shard_index
from socodet.images.decode import decode_image, image_size
from socodet.images.photographs import photographs
from socodet.images.reading import PixelSettings, read_images_as
from socodet.images.source import open_images
from socodet.pretraining.recipes import recipe
from socodet.proposals import table as tables
from socodet.proposals.foreign_formats import read_foreign
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable, table_schema
from socodet.reports.report import report
from socodet.reports.runs import read_records
from socodet.reports.sections.classes import class_sections
from socodet.reports.sections.recipe import recipe_section
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile

PHOTOGRAPH = (photographs() / "chelsea.jpg").read_bytes()
SCRIPT = "<script src=http://evil.example/x.js>alert(1)</script>"


class Sentinel:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def outside(tmp_path):
    """A folder that nothing may be added to, with a photograph that is not the sets'; the sets are in `inside/data`."""
    (tmp_path / "inside" / "data").mkdir(parents=True)
    (tmp_path / "private.jpg").write_bytes(PHOTOGRAPH)
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["inside", "private.jpg"]


@pytest.fixture
def folder(outside):
    """The folder of a set."""
    return outside / "inside" / "data"


def one_line(call, *arguments):
    """The line in which it is refused; None if it is not."""
    try:
        call(*arguments)
    except InputError as error:
        return str(error).splitlines() == [str(error)] and str(error)
    return None


def refused(call, *arguments):
    """The one line in which it is refused."""
    line = one_line(call, *arguments)
    assert line
    return line


# Tar shards


def member(name, kind=tarfile.REGTYPE, **fields):
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def test_members_of_a_shard_that_lead_out_of_it_or_are_no_files(folder, outside, capsys):
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in ("a.jpg", "../../evil.jpg", "/evil.jpg", "x/../../../evil.jpg"):
            tar.addfile(member(name, size=len(PHOTOGRAPH)), io.BytesIO(PHOTOGRAPH))
        for name, kind in (("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            tar.addfile(member(name, kind, linkname=str(outside / "private.jpg")))
        for name, kind in (("p.jpg", tarfile.FIFOTYPE), ("z.jpg", tarfile.CHRTYPE)):
            tar.addfile(member(name, kind, devmajor=1, devminor=5))
    for _ in range(2):  # scanned, and by its index
        source = open_images(folder)
        assert [source.key(index) for index in range(len(source))] == ["a.jpg"]
        assert source.read(0) == PHOTOGRAPH
    assert "3 images left out" in capsys.readouterr().err
    main(["pack", str(folder), "--output", str(folder / "packed"), "--workers", "1"])
    with tarfile.open(folder / "packed" / "shard-000000.tar") as tar:
        assert tar.getnames() == ["a.jpg"]


def test_a_shard_that_declares_more_than_it_has_and_one_of_a_huge_image(folder, monkeypatch):
    entry = member("a.jpg", size=2**40)
    (folder / "s.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + PHOTOGRAPH)
    assert "damaged" in refused(open_images, folder)
    with (folder / "s.tar").open("wb") as file:  # sparse: it takes no disk
        file.write(member("a.jpg", size=2**33).tobuf())
        file.truncate(2**33 + 10240)
    with pytest.raises(OSError, match="larger"):
        open_images(folder).read(0)
    with (folder / "a.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="larger"):
        open_images(folder).read(0)


@pytest.mark.parametrize(
    "change",
    [
        {"start": [0, 2**62]},
        {"start": [-1, 0]},
        {"size": [5, -5]},
        {"size": [2**40, 5]},
        {"name": [b"../../evil.jpg", b"b.jpg"]},
        {"name": [None, b"b.jpg"]},
        {"start": ["text", "text"]},
    ],
)
def test_an_index_that_comes_with_a_shard_is_believed_only_where_it_can_be_true(folder, change):
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            tar.addfile(member(name, size=700), io.BytesIO(bytes(700)))
    source = open_images(folder / "s.tar")
    index = folder / ".s.tar.index"
    table = pa.ipc.open_file(index).read_all()
    ((column, values),) = change.items()
    table = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    with pa.ipc.new_file(index, table.schema) as writer:
        writer.write_table(table)
    again = open_images(folder / "s.tar")
    assert [again.key(k) for k in range(2)] == [source.key(k) for k in range(2)] == ["a.jpg", "b.jpg"]
    assert again.read(1) == bytes(700)
    assert shard_index.index_shard(folder / "s.tar").sizes.tolist() == [700, 700]


# Proposal tables


def write_table(file, names, schema=None):
    schema = schema or table_schema(ProposalSettings())
    count = len(names)
    boxes = pa.array([[[0, 0, 9, 9]]] * count, schema.field("boxes").type)
    columns = [pa.array(names, pa.string()), pa.array([400] * count, pa.int32()), pa.array([266] * count, pa.int32())]
    pq.write_table(pa.Table.from_arrays([*columns, boxes, pa.array([None] * count, pa.string())], schema=schema), file)


def test_names_in_a_table_are_only_looked_up(folder):
    """A table names no file that is read: its rows are found by the names of the images that the user gives."""
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    write_table(folder / "p.parquet", ["../../private.jpg", "/etc/passwd", SCRIPT])
    assert "lacks 1 of the 1 images" in refused(
        ProposalTable.read(folder / "p.parquet").check_images, open_images(folder)
    )
    write_table(folder / "p.parquet", ["a.jpg", "../../private.jpg"])
    ProposalTable.read(folder / "p.parquet").check_images(open_images(folder))


def test_columns_that_unpickle_code(folder, outside):
    code = pickle.dumps(Sentinel(outside / "sentinel"))
    schema = table_schema(ProposalSettings())
    for name in ("arrow.py_extension_type", "arrow.json", "pandas"):
        marks = {"ARROW:extension:name": name, "ARROW:extension:metadata": code}
        field = schema.field("image").with_metadata(marks)
        write_table(folder / "p.parquet", ["a.jpg"], schema.set(0, field))
        for read in (ProposalTable.read, read_foreign):
            assert one_line(read, folder / "p.parquet") is not False
    pa_table = pa.table({"image": ["a"], "boxes": pa.array([code], pa.binary())})
    pq.write_table(pa_table, folder / "p.parquet")
    refused(read_foreign, folder / "p.parquet")


def test_a_small_table_of_more_values_than_fit_into_memory(folder, monkeypatch):
    write_table(folder / "p.parquet", ["a.jpg"] * 20_000)
    monkeypatch.setattr(tables, "LEAST_BYTES", 2**40)
    assert "do not fit into the memory" in refused(ProposalTable.read, folder / "p.parquet")
    pq.write_table(pa.table({"image": ["a"], "xywh": [[[1, 2, 3, 4]]]}), folder / "q.parquet")
    assert "do not fit into the memory" in refused(read_foreign, folder / "q.parquet")


def test_arrays_that_are_pickled_or_declare_more_than_they_hold(folder, outside):
    np.save(folder / "a.npy", np.array([Sentinel(outside / "sentinel")]), allow_pickle=True)
    refused(read_foreign, folder)
    with (folder / "a.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)}
        np.lib.format.write_array_header_1_0(file, header)
    refused(read_foreign, folder)
    (folder / "a.npy").write_bytes(pickle.dumps(Sentinel(outside / "sentinel")))
    refused(read_foreign, folder)
    (folder / "a.npy").unlink()
    (folder / "a.json").write_text("[" * 100_000)
    refused(read_foreign, folder / "a.json")


# Annotated sets


def coco(folder, names):
    (folder / "set.json").write_text(
        json.dumps(
            {
                "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
                "annotations": [
                    {"id": k, "image_id": k, "category_id": 1, "bbox": [9, 9, 50, 50]} for k in range(len(names))
                ],
                "categories": [{"id": 1, "name": SCRIPT}],
            }
        )
    )
    return folder / "set.json"


def yolo(folder, names):
    (folder / "train.txt").write_text("\n".join(names))
    (folder / "data.yaml").write_text("train: train.txt\nnames: [cat]")
    return folder


def darknet(folder, names):
    (folder / "train.txt").write_text("\n".join(names))
    (folder / "obj.names").write_text("cat")
    (folder / "obj.data").write_text("train = train.txt\nnames = obj.names")
    return folder


@pytest.mark.parametrize("form", [coco, yolo, darknet], ids=lambda form: form.__name__)
def test_images_far_from_a_set_are_read_only_where_that_is_asked_for(folder, outside, form):
    near = folder.parent / "images" / "b.jpg"
    near.parent.mkdir()
    for file in (folder / "a.jpg", near):
        file.write_bytes(PHOTOGRAPH)
        file.with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2")
    far = ["../../private.jpg", str(outside / "private.jpg"), f"x/../../../{'../' * 20}{outside}/private.jpg"]
    given = form(folder, ["a.jpg", "../images/b.jpg", str(near), *far])
    read = open_detection_set(given, split="train")
    assert {one.file.resolve() for one in read.images} == {folder / "a.jpg", near}
    assert read.problems.counts[Problem.NAME_ASTRAY] == len(far)
    with read_images_as(PixelSettings(outside_images=True)):
        read = open_detection_set(given, split="train")
        assert Problem.NAME_ASTRAY not in read.problems.counts
        assert str(outside / "private.jpg") in {str(one.file.resolve()) for one in read.images}
    given = form(folder, far)
    assert "--outside-images" in refused(lambda: open_detection_set(given, split="train"))
    if form is coco:
        assert "--outside-images" in refused(open_images, given)
        with read_images_as(PixelSettings(outside_images=True)):
            assert open_images(coco(folder, far[:1])).read(0) == PHOTOGRAPH


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ("train: ../images", True),
        ("train: images/train", True),
        ("path: ../images\ntrain: .", True),
        ("path: .\ntrain: ../images", True),
        ("train: {outside}/inside/images", True),
        ("train: ../..", False),
        ("path: {outside}\ntrain: elsewhere", False),
        ("train: {outside}/elsewhere", False),
        ("path: /\ntrain: {outside}/elsewhere", False),
        ("train: [../images, ../../elsewhere]", False),
    ],
)
def test_folders_that_a_description_names(folder, tmp_path_factory, written, usual):
    outside = folder.parent.parent
    elsewhere = tmp_path_factory.mktemp("far") / "elsewhere"
    (outside / "inside" / "elsewhere").symlink_to(elsewhere)  # what a link leads to is what the link is
    for place in (folder / "images" / "train", folder.parent / "images", elsewhere):
        place.mkdir(parents=True)
        (place / "a.jpg").write_bytes(PHOTOGRAPH)
        (place / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    far = written.replace("../../elsewhere", str(elsewhere)).replace("{outside}/elsewhere", str(elsewhere))
    far = far.replace("path: {outside}\ntrain: elsewhere", f"path: {elsewhere.parent}\ntrain: elsewhere")
    (folder / "data.yaml").write_text(f"{far.format(outside=outside)}\nnames: [cat]")
    if usual:
        assert len(open_detection_set(folder, split="train")) == 1
        return
    assert "--outside-images" in refused(lambda: open_detection_set(folder, split="train"))
    with read_images_as(PixelSettings(outside_images=True)):
        assert len(open_detection_set(folder, split="train")) >= 1


def test_class_names_are_read_from_no_other_file(folder, outside):
    (folder.parent / "a.txt").write_text("secret")
    darknet(folder, ["a.jpg"])
    for name in ("/etc/passwd", "../../private.jpg", "/etc/hostname.names"):
        (folder / "obj.data").write_text(f"train = train.txt\nnames = {name}")
        refused(lambda: open_detection_set(folder, split="train"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{sentinel}]]"),
        ("data.yaml", "train: !!python/object/new:os.system ['touch {sentinel}']\nnames: [cat]"),
        ("data.yaml", "a: &a [x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nnames: [*c]\ntrain: *c"),
        ("data.yaml", "train: " + "[" * 600),
        ("set.json", '{{"images": ' + "[" * 100_000),
        (
            "set.json",
            '{{"images": [{{"id": 1' + "0" * 5000 + ', "file_name": "a.jpg"}}], "annotations": [], "categories": []}}',
        ),
    ],
)
def test_descriptions_that_run_code_or_never_end(folder, outside, name, content):
    (folder / name).write_text(content.format(sentinel=outside / "sentinel"))
    refused(lambda: open_detection_set(folder / name, split="train"))
    if name == "set.json":
        refused(open_images, folder / name)


def test_xml_that_grows_or_reads_a_file(folder, outside):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    (folder / "secret").write_text("cat")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    grows = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    for entities, used in ((f'<!ENTITY e0 "x">{grows}', "&e11;"), (f'<!ENTITY f SYSTEM "{folder}/secret">', "&f;")):
        (folder / "a.xml").write_text(
            f"<!DOCTYPE annotation [{entities}]><annotation><object><name>{used}</name>{box}</object></annotation>"
        )
        refused(lambda: open_detection_set(folder, split="train"))


# Checkpoints and weights


def archive(file, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, data in parts.items():
            written.writestr(name, data)


def test_weights_that_run_code(folder, outside):
    for save in (torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))):
        for name in ("w.pth", "w.pt", "w.safetensors"):
            save({"model": Sentinel(outside / "sentinel")}, folder / name)
            refused(WeightsFile(folder / name).read)
    run = RunFolder(folder / "run")
    run.save_checkpoint(1, {"step": 1})
    torch.save({"step": Sentinel(outside / "sentinel")}, run.checkpoint(1))
    refused(run.load_checkpoint)
    torch.save({"model": Sentinel(outside / "sentinel")}, run.best)
    refused(run.load_best)


def bomb_compressed(file):
    archive(file, {"w/data.pkl": bytes(30_000_000), "w/version": b"3"}, zipfile.ZIP_DEFLATED)


def bomb_of_one_part(file):
    """Many names for the same bytes."""
    archive(file, {"w/data.pkl": bytes(1_000_000)})
    data = file.read_bytes()
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entry, tail = data[start:end], bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 1000, 1000, 1000 * len(entry))
    file.write_bytes(data[:start] + entry * 1000 + tail)


def tensor_of_any_size(file):
    torch.save({"w": torch.zeros(1).expand(10**14)}, file)


def tensor_without_numbers(file):
    torch.save({"w": torch.empty(10**14, device="meta")}, file)


def tensor_sparse(file):
    torch.save({"w": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**14,))}, file)


def storage_of_any_size(file):
    torch.save({"w": torch.zeros(7)}, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    at = whole.index(b"K\x07", whole.index(b"FloatStorage"))  # the pickled number of elements
    file.write_bytes(whole[:at] + b"\x8a\x06" + (10**14).to_bytes(6, "little") + whole[at + 2 :])


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "write",
    [
        bomb_compressed,
        bomb_of_one_part,
        tensor_of_any_size,
        tensor_without_numbers,
        tensor_sparse,
        storage_of_any_size,
    ],
    ids=lambda write: write.__name__,
)
def test_weights_that_declare_more_than_they_hold(folder, write):
    write(folder / "w.pth")
    refused(WeightsFile(folder / "w.pth").read)
    run = RunFolder(folder / "run")
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "w.pth").rename(run.checkpoint(1))
    refused(run.load_checkpoint)


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode(),
        json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [2**62, 2**62 + 4]}}).encode(),
        json.dumps({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
    ],
)
@pytest.mark.parametrize("length", [None, 2**63 - 1, 10**8])
def test_safetensors_whose_header_lies(folder, header, length):
    file = folder / "w.safetensors"
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(4))
    refused(WeightsFile(file).read)
    safetensors.torch.save_file({"w": torch.zeros(2)}, file)
    assert WeightsFile(file).read()["w"].tolist() == [0, 0]


# Runs, reports and exports


@pytest.fixture
def run(folder):
    """What pretrain leaves of a run, with HTML in every text."""
    place = folder / SCRIPT.replace("/", "\u2215")
    place.mkdir()
    tiny = to_json(recipe("tiny")) | {"name": SCRIPT}
    described = {
        "versions": {"socodet": SCRIPT, "torch": SCRIPT},
        "recipe": tiny,
        "images": {"count": 3, "names_sha256": SCRIPT},
        "start": {"from": SCRIPT, "file": SCRIPT, "sha256": SCRIPT},
        "location": SCRIPT,
        "proposals": None,
        SCRIPT: "$\\frac$",
    }
    (place / "run.json").write_text(json.dumps(described))
    lines = [{"step": step, "loss": -step, "lr": 0.1, "embedding_std": 0.1, SCRIPT: 3} for step in (1, 2)]
    (place / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def test_a_page_shows_html_as_text_and_fetches_nothing(run, folder):
    page = folder / "page.html"
    report([run], page, show_progress=False)
    written = page.read_text()
    assert "<script" not in written
    assert "&lt;script src=http://evil.example" in written
    assert not any(f'{attribute}="http' in written for attribute in ("src", "href", "srcset", "action"))
    (folder / "class").mkdir()
    tuned = {"versions": {"socodet": "1", "torch": "2"}, "recipe": {"settings": {"detector": SCRIPT}}}
    (folder / "class" / "run.json").write_text(json.dumps(tuned))
    (folder / "class" / "scores.json").write_text(json.dumps({"classes": {SCRIPT: {"objects": 3, "box_AP": 9.5}}}))
    report([folder / "class"], page, overwrite=True, show_progress=False)
    assert "<script" not in page.read_text()
    assert "9.5" in page.read_text()
    assert in_markdown(f"{SCRIPT}\n# x") == "&lt;script src=http://evil.example/x.js&gt;alert(1)&lt;/script&gt; # x"


ODD = [None, 7, "text", [], [[]], {}, {"a": []}, True, 1e400, "../../.."]


def test_odd_values_in_a_run_are_one_line(run):
    described = json.loads((run / "run.json").read_text())
    places = [(key,) for key in described] + [("recipe", key) for key in described["recipe"]]
    count = 0
    for place in places:
        for odd in ODD:
            changed = json.loads(json.dumps(described))
            inner = changed if len(place) == 1 else changed["recipe"]
            inner[place[-1]] = odd
            (run / "run.json").write_text(json.dumps(changed))
            line = one_line(text_of, run)
            assert line is not False
            count += line is not None
    assert count > 50
    (run / "run.json").write_text("[" * 100_000)
    refused(RunFolder(run).describe)


def text_of(run):
    recipe_section(read_records([run]), "Pretraining")


def test_odd_lines_of_a_log_are_left_out(run):
    good = (run / "log.jsonl").read_text().splitlines()
    huge = f"1{'0' * 400}"
    odd = ["[]", "7", '{"step": "x"}', '{"step": 1e3}', f'{{"step": {huge}}}', "[" * 9999]
    partly = f'{{"step": 3, "loss": "<b>", "lr": {huge}, "embedding_std": {{}}, "data_wait": [["x"]]}}'
    (run / "log.jsonl").write_text("\n".join([*odd, *good, partly]))
    (record,) = read_records([run])
    assert [line["step"] for line in record.lines] == [1, 2, 3]
    assert record.lines[-1] == {"step": 3}


def test_odd_scores_are_one_line(run):
    for odd in [*ODD, {"a": {"objects": "1"}}, {"a": {"objects": 1, "box_AP": "x"}}]:
        (run / "scores.json").write_text(json.dumps({"classes": odd}))
        assert odd == {} or refused(class_sections, read_records([run]))


# Images


def png(width, height):
    from zlib import compress, crc32

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(bytes(99))) + chunk(b"IEND", b"")


def test_images_of_more_pixels_than_are_allowed_are_not_decoded(folder):
    jpeg = bytearray(PHOTOGRAPH)
    at = next(k for k in range(len(jpeg)) if jpeg[k] == 0xFF and jpeg[k + 1] in (0xC0, 0xC2))
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    for bomb in (png(60_000, 60_000), png(2**31 - 1, 2**31 - 1), bytes(jpeg)):
        for read in (decode_image, image_size):
            with pytest.raises(UnreadableImageError) as told:
                read(bomb)
            assert "\n" not in str(told.value)
