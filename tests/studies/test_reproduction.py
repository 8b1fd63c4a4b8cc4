"""The small benchmark on the shipped photographs: what is run, what the tables say, stopping and going on."""

import dataclasses
import json
import statistics

import numpy as np
import pytest
from photograph_sets import coco_file
from torch.utils.flop_counter import FlopCounterMode

from socodet.cli import main
from socodet.errors import InputError, SettingError
from socodet.finetuning.settings import FinetuneSettings
from socodet.pretraining.pretrain import build_soco, pretrain
from socodet.pretraining.trainer import Trainer
from socodet.proposals.table import ProposalTable
from socodet.studies.ablation.budget import Budget
from socodet.studies.reproduction import PROTOCOLS, Protocol, reproduce
from socodet.studies.reproduction.table import Reproduction
from socodet.studies.runner import Job, JobResult, Study
from socodet.training.loop import DivergedError
from socodet.training.settings import ExecutionSettings
from socodet.views import make_sample, sample_rng
from socodet.views.batch import collate

SMALL = Protocol(
    "small",
    Budget(epochs=2, batch_size=2, base_lr=16.0, backbone="resnet18", width=0.03, size=32),
    compute_ratio=1.5,
    boxes=("annotated",),
    fractions=(1.0,),
    finetuning=FinetuneSettings("faster_rcnn_fpn", "voc_24k", iterations=2, batch_size=2, size=32, precise_bn=0),
)
METHODS = ["soco", "image", "image_compute", "soco_annotated"]
CPU = ExecutionSettings("cpu", workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    coco_file(folder / "train.json")
    coco_file(folder / "val.json", ("rocket",))
    return folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "out"
    return reproduce(data, output, protocol=SMALL, seeds=(0,), execution=CPU, show_progress=False)


def test_every_method_is_pretrained_probed_and_soco_is_fine_tuned(done):
    assert done.stopped_by is None
    found = json.loads((done.study.folder / "results.json").read_text())
    runs = {run["method"]: run for run in found["runs"] if "method" in run}
    assert {*runs} == {"untrained", *METHODS}
    for run in runs.values():
        assert (run["seed"], run["status"]) == (0, "finished")
        assert 0 <= run["probe"]["backbone"]["knn"] <= 1
    probed = {name: [*runs[name]["probe"]] for name in ("soco", "image", "untrained")}
    assert probed == {"soco": ["head", "backbone"], "image": ["backbone"], "untrained": ["head", "backbone"]}
    pictures = len((done.study.folder / "pictures.txt").read_text().splitlines())
    steps = {name: runs[name]["steps"] for name in METHODS}
    assert steps == {
        "soco": pictures,
        "image": pictures,
        "image_compute": int(1.5 * pictures),
        "soco_annotated": pictures,
    }
    assert [(run["init"], run["status"]) for run in found["runs"] if "init" in run] == [
        ("scratch", "finished"),
        ("soco", "finished"),
    ]
    assert [(row["init"], len(row["scores"]["box_AP"]["values"])) for row in found["detectors"]] == [
        ("scratch", 1),
        ("soco", 1),
    ]
    assert (done.study.folder / "iterations.svg").stat().st_size > 0


def test_the_ceiling_learns_from_annotated_boxes(done, data):
    table = ProposalTable.read(done.study.folder / "proposals-annotated.parquet")
    annotated = json.loads((data / "train.json").read_text())
    names = {image["id"]: image["file_name"] for image in annotated["images"]}
    boxes = {name: [] for name in names.values()}
    for one in annotated["annotations"]:
        x, y, w, h = one["bbox"]
        boxes[names[one["image_id"]]].append((x, y, x + w, y + h))
    assert table.total_boxes
    for key in table.keys:
        name = next(name for name in boxes if key.endswith(name))
        for box in table.boxes(key):
            assert any(np.allclose(box, there, atol=1) for there in boxes[name])


def test_a_second_call_runs_nothing_again_and_more_seeds_may_come(done, data, monkeypatch):
    kept = {path: path.stat().st_mtime_ns for path in done.study.folder.glob("*/seed-0.json")}
    asked = []

    def counted(source, recipe, run, **rest):
        asked.append((run.parent.name, run.name, recipe.training.seed))
        return pretrain(source, recipe, run, **rest)

    monkeypatch.setattr("socodet.studies.pretraining_runs.pretrain", counted)
    again = reproduce(data, done.study.folder, protocol=SMALL, seeds=(0, 5), execution=CPU, show_progress=False)
    assert asked == [(name, "seed-5", 5) for name in METHODS]
    assert kept == {path: path.stat().st_mtime_ns for path in done.study.folder.glob("*/seed-0.json")}
    assert [row.seeds for row in again.methods] == [{0, 5}] * 5
    assert [row.seeds for row in again.detectors.rows] == [{0, 5}] * 2


def test_stopped_it_goes_on_where_it_was(data, tmp_path):
    few = dataclasses.replace(CPU, max_steps=1)
    first = reproduce(data, tmp_path / "out", protocol=SMALL, seeds=(0,), execution=few, show_progress=False)
    assert first.stopped_by == "max_steps"
    assert not (tmp_path / "out" / "soco" / "seed-0.json").exists()
    steps = json.loads((tmp_path / "out" / "soco" / "seed-0" / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert steps == 1
    second = reproduce(data, tmp_path / "out", protocol=SMALL, seeds=(0,), execution=few, show_progress=False)
    assert second.stopped_by == "max_steps"
    steps = json.loads((tmp_path / "out" / "soco" / "seed-0" / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert steps == 2


def test_other_pictures_or_settings_in_the_same_folder_are_refused(done, data, tmp_path):
    other = dataclasses.replace(SMALL, pretraining=dataclasses.replace(SMALL.pretraining, epochs=3))
    with pytest.raises(InputError, match=r"a reproduction of other settings: protocol\.pretraining\.epochs"):
        reproduce(data, done.study.folder, protocol=other, seeds=(0,), execution=CPU, show_progress=False)
    (tmp_path / "foreign").write_text("mine")
    with pytest.raises(InputError, match="not of a reproduction"):
        reproduce(data, tmp_path, protocol=SMALL, seeds=(0,), execution=CPU, show_progress=False)


def test_what_cannot_be_asked_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"leave --images\s+out"):
        reproduce(data, tmp_path / "out", images=data / "train.json", protocol=SMALL, show_progress=False)
    assert not (tmp_path / "out").exists()
    for wrong in ({"finetuned": ("socco",)}, {"finetuned": ()}, {"boxes": ("annotation",)}):
        with pytest.raises(SettingError):
            dataclasses.replace(SMALL, **wrong)


def test_overwritten_it_begins_anew_and_leaves_what_is_not_its_own(data, tmp_path):
    few = dataclasses.replace(CPU, max_steps=1)
    asked = {"protocol": SMALL, "seeds": (0,), "execution": few, "show_progress": False}
    reproduce(data, tmp_path / "out", **asked)
    (tmp_path / "out" / "mine.txt").write_text("kept")
    other = dataclasses.replace(SMALL, pretraining=dataclasses.replace(SMALL.pretraining, epochs=3))
    reproduce(data, tmp_path / "out", **{**asked, "protocol": other}, overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
    recipe = json.loads((tmp_path / "out" / "soco" / "seed-0" / "run.json").read_text())["recipe"]
    assert recipe["training"]["epochs"] == 3


def job(name, seed, knn):
    """A run whose probe finds this, or that diverges."""

    def run(_folder):
        if knn is None:
            raise DivergedError("the loss is NaN", 3)
        probe = dict.fromkeys(("knn", "linear", "linear_balanced", "recall_at_1", "scale_cosine", "others_cosine"), 0.5)
        found = {"backbone": {**probe, "knn_balanced": knn}}
        return JobResult({"steps": 7, "seconds": 60.0, "probe": found})

    return Job(f"{name}/seed-{seed}", {"method": name, "seed": seed}, name, run)


def test_table_has_mean_and_spread_and_says_who_is_above_with_every_seed(tmp_path):
    asked = {"images": {"count": 3}, "train": {"name": "t", "images": 3}, "val": {"name": "v", "images": 2}}
    figures = {
        "soco": (0.30, 0.32, 0.37),
        "image": (0.20, 0.25, 0.31),
        "image_compute": (0.9, None, 0.9),
        "untrained": (0.05, 0.06, 0.07),
    }
    study = Study(tmp_path, "reproduction", show_progress=False)
    study.begin(asked, [])
    study.run(
        [job(name, seed, knn) for name, values in figures.items() for seed, knn in enumerate(values)], lambda: None
    )
    text = Reproduction(study, dataclasses.replace(SMALL, boxes=()), study.outcomes()).as_markdown()
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    mean, spread = statistics.fmean((30, 32, 37)), statistics.stdev((30, 32, 37))
    assert f"| 3 | 7 | 1.00 ± 0.00 | {mean:.2f} ± {spread:.2f} | 50.00 ± 0.00 |" in rows["soco"]
    assert "| 0.500 ± 0.000 |" in rows["soco"]  # a cosine
    assert rows["soco"].endswith("| untrained | – |")  # one seed of the baseline is above one of it
    assert rows["image"].endswith("| untrained | – |")
    assert rows["untrained"].endswith("| – | – |")
    assert "| 2, 1 diverged |" in rows["image_compute"]
    assert rows["image_compute"].endswith("| – | – |")  # not every seed of it is above


def _flops(recipe, images):
    rng, samples = np.random.default_rng(0), []
    for index in range(images):
        x, y, w, h = rng.uniform((0, 0, 110, 110), (120, 80, 250, 200), (12, 4)).T
        boxes = np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)
        image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
        samples.append((index, make_sample(image, boxes, recipe.sample, sample_rng(0, 0, index))))
    training = dataclasses.replace(recipe.training, batch_size=images)
    trainer = Trainer(build_soco(recipe.model, 0), training, 1000, CPU)
    with FlopCounterMode(display=False) as counter:
        trainer.step(collate(samples))
    return counter.get_total_flops()


def test_the_longer_baseline_costs_what_soco_costs():
    protocol = PROTOCOLS["cpu"]
    recipes = {method.name: method.recipe for method in protocol.methods()}
    assert _flops(recipes["soco"], 8) / _flops(recipes["image"], 8) == pytest.approx(protocol.compute_ratio, rel=0.03)
    longer, usual = recipes["image_compute"].training, recipes["image"].training
    assert longer.epochs / usual.epochs == pytest.approx(protocol.compute_ratio)
    assert dataclasses.replace(longer, epochs=usual.epochs, warmup_epochs=usual.warmup_epochs) == usual


def test_unknown_budget_and_missing_folder_are_one_line(data, tmp_path, capsys):
    assert _refused(["reproduce", "mini", "--data", str(data), "--output", str(tmp_path / "o"), "--budget", "big"])
    assert "cpu" in capsys.readouterr().err
    assert _refused(["reproduce", "mini", "--data", str(tmp_path / "none"), "--output", str(tmp_path / "o")])
    assert "is no folder" in capsys.readouterr().err


def _refused(argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code == 2
