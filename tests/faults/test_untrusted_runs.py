"""Malicious weights, checkpoints and runs: code, false sizes, and HTML."""

import json
import pickle
import struct
import zipfile

import pytest
import safetensors.torch
import torch
from malicious import SCRIPT, Sentinel, one_line, refused

from socodet.exporting.card import in_markdown
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import recipe
from socodet.reports.report import report
from socodet.reports.runs import read_records
from socodet.reports.sections.classes import class_sections
from socodet.reports.sections.recipe import recipe_section
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile

# Checkpoints and weights


def archive(file, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, data in parts.items():
            written.writestr(name, data)


def test_weights_that_run_code_are_refused(folder, outside):
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
    archive(file, {"w/data.pkl": bytes(3_000_000), "w/version": b"3"}, zipfile.ZIP_DEFLATED)


def bomb_of_overlapping_entries(file):
    """Many entries for the same bytes."""
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
    at = whole.index(b"K\x07", whole.index(b"FloatStorage"))  # the number of elements in the pickle
    file.write_bytes(whole[:at] + b"\x8a\x06" + (10**14).to_bytes(6, "little") + whole[at + 2 :])


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "write",
    [
        bomb_compressed,
        bomb_of_overlapping_entries,
        tensor_of_any_size,
        tensor_without_numbers,
        tensor_sparse,
        storage_of_any_size,
    ],
    ids=lambda write: write.__name__,
)
def test_weights_that_declare_more_than_they_contain_are_refused(folder, write):
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
def test_safetensors_with_a_false_header_are_refused(folder, header, length):
    file = folder / "w.safetensors"
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(4))
    refused(WeightsFile(file).read)
    safetensors.torch.save_file({"w": torch.zeros(2)}, file)
    assert WeightsFile(file).read()["w"].tolist() == [0, 0]


# Runs, reports and exports


@pytest.fixture
def run(folder):
    """A run as `pretrain` leaves it, with HTML in every text."""
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
    lines = [{"step": step, "loss": -step, SCRIPT: 3} for step in (1, 2)]
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


def test_unexpected_values_in_a_run_are_one_line(run):
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


@pytest.mark.parametrize(
    "sizes",
    [
        {"fpn_channels": 10**6},
        {"representation_size": 10**6},
        {"head_convs": 10**6},
        {"pooled_size": 10**4},
        {"hidden_size": 2**40},
        {"embedding_size": 10**7},
        {"head_channels": 2**20},
    ],
    ids=str,
)
def test_networks_too_large_for_any_memory_are_not_built(run, sizes):
    described = json.loads((run / "run.json").read_text())
    described["recipe"]["model"] |= sizes
    (run / "run.json").write_text(json.dumps(described))
    assert "weights" in refused(RunFolder(run).settings, ModelSettings, "model")


def test_code_named_in_a_recipe_is_not_imported(run, folder, outside, monkeypatch):
    (folder / "evil.py").write_text(f"open({str(outside / 'sentinel')!r}, 'w')")
    monkeypatch.chdir(folder)
    described = json.loads((run / "run.json").read_text())
    described["recipe"]["objective"]["loss"] = "evil:loss"
    (run / "run.json").write_text(json.dumps(described))
    assert "--import evil" in refused(lambda: report([run], folder / "page.html", show_progress=False))


def test_malformed_lines_of_a_log_are_skipped(run):
    good = (run / "log.jsonl").read_text().splitlines()
    huge = f"1{'0' * 400}"
    odd = ["[]", "7", '{"step": "x"}', '{"step": 1e3}', f'{{"step": {huge}}}', "[" * 9999]
    partly = f'{{"step": 3, "loss": "<b>", "lr": {huge}, "embedding_std": {{}}, "data_wait": [["x"]]}}'
    (run / "log.jsonl").write_text("\n".join([*odd, *good, partly]))
    (record,) = read_records([run])
    assert [line["step"] for line in record.lines] == [1, 2, 3]
    assert record.lines[-1] == {"step": 3}


def test_unexpected_scores_are_one_line(run):
    for odd in [*ODD, {"a": {"objects": "1"}}, {"a": {"objects": 1, "box_AP": "x"}}]:
        (run / "scores.json").write_text(json.dumps({"classes": odd}))
        assert odd == {} or refused(class_sections, read_records([run]))
