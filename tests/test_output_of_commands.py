"""Results as JSON, messages beside them, and shell completion."""

import json
import logging
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from photograph_sets import coco_file

import socodet
from socodet.cli import main
from socodet.commands.messages import as_json
from socodet.detection.datasets.layouts import open_detection_set
from socodet.finetuning.labelled_sets import open_labelled_sets
from socodet.images.photographs import photographs
from socodet.images.reading import requested_reading
from socodet.pretraining.recipes import RECIPES, recipe
from socodet.runtime.serialization import to_json

pytestmark = pytest.mark.usefixtures("narrow_networks")
SHORT = "--recipe tiny --batch-size 4 --epochs 2 --warmup-epochs 0 --workers 0 --device cpu --proposals.method grid"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for path in sorted(photographs().glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8")
    return folder


def found(capsys, *argv):
    """The JSON value that standard output consists of."""
    main([*map(str, argv), "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_first_suggested_next_command_is_probe(capsys, images, tmp_path):
    run = tmp_path / "a run"
    main(["pretrain", str(images), "--output", str(run), *SHORT.split()])
    after = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  socodet ")]
    assert [words[1] for words in after] == ["probe", "finetune", "export"]
    assert all(str(run) in words for words in after)


def test_results_are_printed_as_json(capsys, images, tmp_path):
    assert found(capsys, "recipes", "tiny") == to_json(recipe("tiny"))
    assert set(found(capsys, "recipes")) == {"auto", *RECIPES}
    table = tmp_path / "p.parquet"
    made = found(capsys, "propose", images, "--output", table, "--method", "grid", "--workers", "1")
    assert made["table"] == str(table)
    assert made["images"] == 5
    assert made["boxes"] == sum(map(len, pq.read_table(table)["boxes"].to_pylist()))
    assert [name for name, _ in made["unreadable"]] == ["broken.jpg"]
    asked = ["pretrain", images, "--output", tmp_path / "run", *SHORT.split(), "--max-steps", "1"]
    assert found(capsys, *asked)["stopped_by"] == "max_steps"
    assert found(capsys, *asked[:-2])["steps"] == 2
    seen = found(capsys, "convert", coco_file(tmp_path / "set.json", ("chelsea", "rocket"), masks=False), "--check")
    assert [(part["images"], part["problems"]) for part in seen["parts"].values()] == [(2, {})]


def test_numpy_numbers_and_sets_become_plain_json():
    found = {"a": np.float32(0.5), "b": np.float32("nan"), "c": np.int64(3), "d": np.arange(2), "e": {"y", "x"}}
    found |= {
        "f": frozenset({np.int64(2), 1}),
        "g": np.bool_(True),
        "h": (np.float64("inf"), Path("p")),
        np.int64(7): 0,
    }
    assert json.loads(json.dumps(as_json(found))) == {
        "a": 0.5, "b": None, "c": 3, "d": [0, 1], "e": ["x", "y"], "f": [1, 2], "g": True, "h": [None, "p"], "7": 0
    }  # fmt: skip


def test_a_stopped_commands_result_is_printed_as_json(capsys, monkeypatch, images):
    stopped = socodet.PredictResult("found", 3, 1, 2, (), "SIGTERM", 0.5)
    monkeypatch.setattr("socodet.prediction.inputs.check_prediction_arguments", lambda *_, **__: (None, None))
    monkeypatch.setattr("socodet.prediction.predict.predict", lambda *_, **__: stopped)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "run", str(images), "--output", "found", "--json"])
    assert ended.value.code == 143
    assert json.loads(capsys.readouterr().out)["stopped_by"] == "SIGTERM"


@pytest.mark.parametrize("to_json", [False, True])
def test_scores_are_printed_even_if_writing_them_fails(capsys, monkeypatch, to_json):
    scores = socodet.Evaluation({"box_AP": 41.0}, (), unwritten=("a.json: no space",))
    monkeypatch.setattr("socodet.finetuning.inputs.check_evaluation_arguments", lambda *_, **__: None)
    monkeypatch.setattr("socodet.finetuning.evaluate.evaluate", lambda *_, **__: scores)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "run", "--data", "set", *(["--json"] if to_json else [])])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "a.json: no space" in printed.err
    assert json.loads(printed.out)["scores"] == {"box_AP": 41.0} if to_json else "41.00" in printed.out


@pytest.mark.parametrize(
    "flags",
    [
        "few --val-share 0.4 --val-seed 3 --images elsewhere",
        "few --val-share 0.4 --images elsewhere --outside-images",
        "few --images elsewhere --val whole",
        "few --images elsewhere --val 'of two'",
    ],
)
def test_the_suggested_evaluate_command_scores_the_same_images(capsys, monkeypatch, tmp_path, flags):
    """Without the right flags, `evaluate` would use another split, seed or image folder, or find no images."""
    monkeypatch.chdir(tmp_path)
    names = ("chelsea", "coffee", "rocket", "hopper", "raccoon", "astronaut")
    for name in names:
        for image, label in ((f"elsewhere/{name}", f"few/{name}"), (f"whole/{name}", f"whole/{name}")):
            write(image, label, name)
    for part, name in zip(("train", "val"), names, strict=False):
        write(f"of two/{part}/{name}", f"of two/{part}/{name}", name)
    asked, scored = {}, []

    def tune(train, output, settings, *, val, images, reading, **_):
        found = socodet.FinetuneResult(output, "faster_rcnn_fpn", 1, 1, None, None, socodet.Evaluation({}, ()), (), 0.1)
        scored.append(open_labelled_sets(train, val, images, reading)[1])
        asked["outside"] = requested_reading().settings.outside_images
        return found

    def evaluate(run, data, *, split, images, reading, **_):
        scored.append(open_detection_set(data, split=split, images=images, reading=reading))
        assert requested_reading().settings.outside_images == asked["outside"]
        return socodet.Evaluation({}, ())

    monkeypatch.setattr("socodet.commands.finetune.check_finetuning_arguments", lambda *_, **__: None)
    monkeypatch.setattr("socodet.finetuning.finetune.finetune", tune)
    monkeypatch.setattr("socodet.finetuning.inputs.check_evaluation_arguments", lambda *_, **__: None)
    monkeypatch.setattr("socodet.finetuning.evaluate.evaluate", evaluate)
    main(["finetune", *shlex.split(flags), "--output", "det"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  socodet evaluate ")]
    main(shlex.split(line)[1:])
    first, again = ([image.file.resolve() for image in one.images] for one in scored)
    assert again == first


def write(image, label, name):
    """Writes a photograph, and a YOLO label file with one object."""
    for path in (Path(image), Path(label)):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(photographs() / f"{name}.jpg", f"{image}.jpg")
    Path(f"{label}.txt").write_text("0 .5 .5 .2 .2\n")


def test_messages_do_not_go_to_standard_output_if_there_is_no_standard_error(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    logging.getLogger("socodet").warning("to be lost")
    assert capsys.readouterr().out == ""


def test_quiet_keeps_results_and_warnings_and_verbose_adds_every_value(capsys, images, tmp_path):
    asked = ["pretrain", str(images), *SHORT.split(), "--max-steps", "1", "--output"]
    main([*asked, str(tmp_path / "loud")])
    assert "images/s" in capsys.readouterr().err
    main([*asked, str(tmp_path / "quiet"), "--quiet"])
    printed = capsys.readouterr()
    assert "stopped by max_steps" in printed.out
    assert "broken.jpg" in printed.err
    assert "images/s" not in printed.err
    main(["recipes", "tiny", "--verbose"])
    assert 'name: "tiny"' in capsys.readouterr().err
    main(["recipes", "tiny"])
    assert capsys.readouterr().err == ""


def test_messages_in_python_follow_the_log_level(capsys, images, tmp_path, caplog):
    logger = logging.getLogger("socodet")
    logger.addHandler(caplog.handler)
    try:
        logger.setLevel(logging.INFO)
        socodet.propose(images, tmp_path / "a.parquet", workers=1)
        assert any("propos" in record.getMessage() for record in caplog.records)
        capsys.readouterr()
        logger.setLevel(logging.ERROR)
        socodet.propose(images, tmp_path / "b.parquet", workers=1)
        assert capsys.readouterr().err == ""
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.INFO)


def completion_script(capsys, shell):
    with pytest.raises(SystemExit) as ended:
        main(["--completion", shell])
    assert not ended.value.code
    return capsys.readouterr().out


def test_completion_works_in_bash(capsys):
    script = completion_script(capsys, "bash")

    def completed(*words):
        typed = " ".join(map(shlex.quote, words))
        complete = (
            f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _tyro_socodet; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        run = {"capture_output": True, "text": True, "check": True}
        done = subprocess.run(["bash"], input=f"{script}\n{complete}\n", **run)  # too long for an argument
        return done.stdout.splitlines()

    assert completed("socodet", "pretrain", "--warm") == ["--warmup-epochs"]
    flags = completed("socodet", "pretrain", "")
    assert "--warmup-epochs" in flags
    assert all(flag.startswith("-") for flag in flags)  # no lines of the flags' descriptions
    for names in (("my",), ("--output", "my")):  # left to bash, which quotes file names
        assert completed("socodet", "pretrain", *names) == [""]
    assert "complete -o default -F _tyro_socodet socodet" in script


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_completion_works_in_zsh(capsys, tmp_path):
    (tmp_path / "script").write_text(completion_script(capsys, "zsh"))
    for prepared in ("", "autoload -Uz compinit; compinit -u -D; "):
        command = f"{prepared}source ./script; print $_comps[socodet]"
        done = subprocess.run(
            ["zsh", "-f", "-c", command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        assert (done.stdout.strip(), done.stderr) == ("_tyro_socodet", "")


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_completion_works_in_fish(capsys, tmp_path):
    (tmp_path / "script").write_text(completion_script(capsys, "fish"))
    (tmp_path / "my images").mkdir()
    expected = {
        "pretrain my": "my images/",
        "pretrain --output my": "my images/",
        "expo": "export",
        "pretrain --warm": "--warmup-epochs",
    }
    for typed, found in expected.items():
        command = f"source script; complete -C 'socodet {typed}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [found]


def test_a_shell_may_follow_an_equals_sign_and_is_checked(capsys):
    with pytest.raises(SystemExit):
        main(["--completion=fish"])
    assert "_tyro_socodet" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["--completion", "bish"])
    assert ended.value.code == 2
    assert "did you mean bash" in capsys.readouterr().err
