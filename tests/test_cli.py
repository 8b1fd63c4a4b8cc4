"""The command line: every mistake is one line on standard error with exit code 2, no traceback and nothing lost."""

import errno
import importlib
import inspect
import io
import json
import os
import re
import select
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import socodet
from socodet._version import __version__
from socodet.cli import COMMANDS, _stdout_is_closed, main
from socodet.images.photographs import photographs
from socodet.pretraining.recipes import RECIPES, recipe
from socodet.training.devices import log_precision_note

pytestmark = pytest.mark.usefixtures("narrow_networks")

FAST = ["--recipe", "tiny", "--batch-size", "4", "--epochs", "2", "--warmup-epochs", "0", "--workers", "0"]


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """Four of the photographs."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted(photographs().glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def table(few_images, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "proposals.parquet"
    main(["propose", str(few_images), "--output", str(path), "--workers", "1"])
    return path


def error_of(capsys, *argv) -> str:
    """The one line a failing command prints."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in argv])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("socodet: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("prepose x", "propose"),
        ("reproduce own_data", "reproduce own-data"),
        ("reproduce", "reproduce own-data"),
        ("pretain images", "pretrain"),
        ("inspct detections", "inspect detections"),
        ("pretrain --recpie tiny", "--recipe"),  # without also listing the missing arguments
        ("pretrain x --output y --views.0.sizes 3", "--views.0.size"),
        ("finetune x --output y --detector fast_rcnn_fpn", "faster_rcnn_fpn"),
        ("finetune x --output y --scheduel=voc_24k", "--schedule"),
        ("recipes Fpn_100EP", "fpn_100ep"),
        ("export x --output y --format detectorn2", "detectron2"),
        ("ablate table_4 x --output y", "table4"),
        ("export --format detectorn2", "detectron2"),
        ("finetune x -otuput y", "--output"),
        ("finetune x --output y --lr 0.1", "--base-lr"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(capsys, argv, meant):
    assert re.search(rf"did you mean (\S+ or )*{re.escape(meant)}( or \S+)*\?", error_of(capsys, *argv.split()))


def test_the_first_word_of_a_command_is_enough_for_its_help(capsys):
    main(["reproduce", "own-data", "--help"])
    whole = capsys.readouterr().out
    main(["reproduce", "--help"])
    assert capsys.readouterr().out == whole
    assert "own-data" in whole


def test_mistakes_in_names_and_values_of_flags(capsys, few_images, tmp_path):
    run = tmp_path / "run"
    assert "choose one of propose" in error_of(capsys, "xyz")
    assert "images" in error_of(capsys, "pretrain").lower()
    assert "--output" in error_of(capsys, "propose", few_images)
    assert "--output" in error_of(capsys, "pretrain", few_images)
    start = ["pretrain", few_images, "--output", run]
    assert "fpn_100ep" in error_of(capsys, *start, "--recipe", "fpn_100")
    assert "--epoch" in error_of(capsys, *start, "--recipe", "tiny", "--epochz", "3")
    assert "--epochs: takes a number, not 'many'" in error_of(capsys, *start, "--recipe", "tiny", "--epochs", "many")
    for flags, said in {
        "--batch-size two": "a whole number, not 'two'",
        "--limit 1e3": "a whole number, not '1e3'",
        "--probe-every 0,5": "a number, not '0,5'",
        "--bands 3 two 1": "whole numbers, not 'two'",
        "--level-limits 1 2 x": "numbers, not 'x'",
        "--resume=True": "no value; leave out =True",
    }.items():
        flag = flags.split()[0].partition("=")[0]
        assert f"{flag}: takes {said} (see" in error_of(capsys, *start, "--recipe", "tiny", *flags.split())
    assert "missing: IMAGES, --output (" in error_of(capsys, "pretrain", "--recipe", "tiny")
    assert "--batch-size must be at least 1, not 0" in error_of(capsys, *start, "--recipe", "tiny", "--batch-size", "0")
    assert "views.1.size" in error_of(capsys, *start, "--recipe", "tiny", "--views.1.size", "wide")
    assert "size must be between" in error_of(capsys, *start, "--recipe", "tiny", "--views.1.size", "1")
    assert "workers must be at least 0" in error_of(capsys, *start, "--recipe", "tiny", "--workers", "-1")
    assert "socodet recipes lists all" in error_of(capsys, "recipes", "unknown")
    assert not run.exists()


def test_several_images_are_refused_with_an_alternative(capsys, few_images, tmp_path):
    one, other, *_ = sorted(map(str, few_images.glob("*.jpg")))
    said = error_of(capsys, "predict", tmp_path, one, other, "--output", tmp_path / "found")
    assert f"{other}: is one argument too many" in said
    assert "'*.jpg'" in said
    assert "*.jpg" not in error_of(capsys, "predict", tmp_path, few_images, few_images, "--output", tmp_path / "found")


@pytest.mark.parametrize(("flag", "instead"), [("--hours=1", "--epochs"), ("--dry-run", "or --recipe tiny")])
def test_flags_of_the_plan_are_refused_with_an_alternative(capsys, few_images, tmp_path, flag, instead):
    assert instead in error_of(capsys, "pretrain", few_images, "--output", tmp_path / "run", "--recipe", "tiny", flag)


def test_a_run_given_as_an_extra_argument_suggests_init(capsys, few_images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    flags = ["--output", tmp_path / "out", "--seeds", "1", "2"]
    for given in ([tmp_path / "run", few_images], [few_images, tmp_path / "run"]):
        said = error_of(capsys, "finetune", *given, *flags)
        assert f"{given[1]}: is one argument too many" in said
        assert f"--init {tmp_path / 'run'}" in said
    assert "--init" not in error_of(capsys, "pretrain", few_images, tmp_path / "run", *flags[:2])


def test_mistakes_in_input_and_output_paths(capsys, few_images, table, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "t.parquet"
    assert "empty" in error_of(capsys, "propose", empty, "--output", out)
    assert "nowhere" in error_of(capsys, "propose", tmp_path / "nowhere", "--output", out)
    before = table.read_bytes()
    assert "proposals.parquet" in error_of(capsys, "propose", few_images, "--output", table)
    assert table.read_bytes() == before
    run = tmp_path / "run"
    pretrain = ["pretrain", few_images, "--output", run, *FAST]
    assert "t.parquet" in error_of(capsys, *pretrain, "--proposals", out)
    not_a_table = tmp_path / "text.parquet"
    not_a_table.write_text("hello")
    assert "text.parquet" in error_of(capsys, *pretrain, "--proposals", not_a_table, "--overwrite")
    assert "is a file" in error_of(capsys, "pretrain", few_images, "--output", not_a_table, *FAST)
    assert "files that are not of a run" in error_of(capsys, "pretrain", few_images, "--output", few_images, *FAST)
    assert "not a run" in error_of(capsys, "export", empty, "--output", tmp_path / "w.pth")
    assert "neither .png nor .html" in error_of(
        capsys, "inspect", "proposals", few_images, "--output", tmp_path / "x.txt"
    )


def test_a_table_of_other_images_is_refused(capsys, few_images, table, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for path in few_images.iterdir():
        (others / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (50, 40)).save(others / "one_more.png")
    pretrain = ["pretrain", others, "--output", tmp_path / "run", *FAST, "--proposals", table]
    assert "one_more.png" in error_of(capsys, *pretrain)
    (others / "one_more.png").unlink()
    names = sorted(path.name for path in few_images.iterdir())
    for name in names:
        Image.new("RGB", (50, 40)).save(others / name)  # the same name, but another image
    assert f"{names[0]} is 50x40" in error_of(capsys, *pretrain, "--overwrite")


def test_debug_shows_where_an_error_arose(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--output", "x.pth", "--debug"])
    assert ended.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_unusual_images_are_used_and_broken_ones_listed(capsys, few_images, tmp_path):
    folder = tmp_path / "odd"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    rgb.convert("L").save(folder / "gray.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65535, (40, 50), dtype=np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgb.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "deeper" / "turned.JPG", exif=exif)
    whole = io.BytesIO()
    rgb.save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[:200])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")

    main(["pretrain", str(folder), "--output", str(tmp_path / "run"), *FAST, "--max-steps", "1"])
    printed = capsys.readouterr()
    assert "stopped by max_steps after 1 of 3 steps" in printed.out
    assert "3 images could not be read" in printed.err
    for name in ("truncated.jpg", "text.jpg", "empty.png"):
        assert f"  {name}: " in printed.err
    assert "Traceback" not in printed.err


def test_backbone_only_is_not_suggested_for_a_frozen_backbone(capsys, few_images, table, tmp_path):
    """It has not changed, so there is nothing to transfer alone."""
    asked = ["--output", str(tmp_path / "run"), "--proposals", str(table), *FAST, "--backbone-lr", "0"]
    main(["pretrain", str(few_images), *asked, "--epochs", "1"])
    said = capsys.readouterr().out
    assert "finished, 1 step" in said
    assert "--backbone-only" not in said


def test_a_finished_run_or_one_of_another_recipe_is_kept(capsys, few_images, table, tmp_path, monkeypatch):
    run = tmp_path / "run"
    pretrain = ["pretrain", str(few_images), "--output", str(run), "--proposals", str(table), *FAST]
    main([*pretrain, "--max-steps", "1"])
    capsys.readouterr()
    checkpoint = sorted((run / "checkpoints").iterdir())[-1].read_bytes()
    other = error_of(capsys, *pretrain, "--base-lr", "0.125")
    assert "--base-lr (0.125 now" in other
    own_table = [a for a in pretrain if a not in ("--proposals", str(table))]
    assert "holds a run of other settings: --proposals" in error_of(capsys, *own_table)
    assert sorted((run / "checkpoints").iterdir())[-1].read_bytes() == checkpoint
    for mistake in (["--proposals", str(tmp_path / "typo.parquet")], ["--epochs", "0.1"], ["--seed", "-1"]):
        error_of(capsys, *pretrain, "--overwrite", *mistake)  # refused before anything is deleted
        assert sorted((run / "checkpoints").iterdir())[-1].read_bytes() == checkpoint
    main([*pretrain])
    said = capsys.readouterr().out
    assert "finished, 2 steps" in said
    assert "--backbone-only" in said
    assert "finished" in error_of(capsys, *pretrain)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    log_precision_note.cache_clear()
    main([*pretrain, "--resume"])
    printed = capsys.readouterr()
    assert "finished, 2 steps" in printed.out
    assert "bfloat16" not in printed.err  # no step is left that it could speed up
    main([*pretrain, "--overwrite", "--max-steps", "1"])
    assert "after 1 of 2 steps" in capsys.readouterr().out


def test_a_checkpoint_of_another_recipe_is_refused(capsys, few_images, table, tmp_path):
    pretrain = ["pretrain", str(few_images), "--proposals", str(table), *FAST, "--max-steps", "1"]
    main([*pretrain, "--output", str(tmp_path / "a")])
    main([*pretrain, "--output", str(tmp_path / "b"), "--embedding-size", "32"])
    capsys.readouterr()
    (theirs,) = (tmp_path / "b" / "checkpoints").iterdir()
    (ours,) = (tmp_path / "a" / "checkpoints").iterdir()
    ours.write_bytes(theirs.read_bytes())
    assert "is of another model" in error_of(capsys, *pretrain, "--output", tmp_path / "a")
    torch.save({"a": 1}, ours)
    assert "written by another version" in error_of(capsys, *pretrain, "--output", tmp_path / "a")
    assert "holds no state dict" in error_of(capsys, "export", tmp_path / "a", "--output", tmp_path / "w.pth")


def test_divergence_is_one_line_and_leaves_only_good_checkpoints(capsys, few_images, table, tmp_path):
    run = tmp_path / "run"
    flags = ["--base-lr", "1e30", "--log-every", "10", "--checkpoint-every", "1", "--epochs", "10"]
    start = ["pretrain", few_images, "--output", run, "--proposals", table, *FAST, *flags]
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in start])
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "diverged by step" in last
    assert "lower --base-lr" in last
    for path in (run / "checkpoints").glob("*.pt"):
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["model"].values())


def test_outputs_that_cannot_be_written(capsys, few_images, table, tmp_path):
    below_a_file = table / "x"
    assert "Not a directory" in error_of(capsys, "pretrain", few_images, "--output", below_a_file, *FAST)
    assert "Not a directory" in error_of(capsys, "inspect", "proposals", few_images, "--output", below_a_file / "a.png")
    assert "Not a directory" in error_of(capsys, "demo", "--output", below_a_file)


def test_the_last_of_two_recipes_replaces_the_first_entirely(few_images, table, tmp_path):
    run = tmp_path / "run"
    twice = ["--recipe", "fpn_100ep", *FAST, "--max-steps", "1"]
    main(["pretrain", str(few_images), "--output", str(run), "--proposals", str(table), *twice])
    described = json.loads((run / "run.json").read_text())["recipe"]
    assert (described["name"], described["model"]["backbone"]) == ("tiny", "resnet18")


def test_every_recipe_prints_every_field(capsys):
    main(["recipes"])
    listed = capsys.readouterr().out
    for name in RECIPES:
        assert f"\n{name} " in "\n" + listed
        main(["recipes", name])
        printed = capsys.readouterr().out
        assert f"--epochs {recipe(name).training.epochs}" in printed
        assert f"--views.0.size {recipe(name).sample.views[0].size}" in printed
        assert "--proposals.method" in printed


def test_help_and_checking_arguments_do_not_import_torch(tmp_path):
    code = (
        "import sys, contextlib, io\n"
        "from socodet.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "main(['--version'])\n"
        "assert 'torch' not in sys.modules and 'numba' not in sys.modules\n"
        "import importlib, socodet.cli\n"
        "for name in socodet.cli.COMMANDS:\n"
        "    importlib.import_module('socodet.commands.' + name.replace(' ', '_').replace('-', '_'))\n"
        "for words in ('finetune nowhere --output x', 'evaluate nowhere --data x', 'predict nowhere x --output y',\n"
        "              'finetune . --output x --init nowhere', 'pretrain nowhere --output x --recpie tiny'):\n"
        "    try:\n        main(words.split())\n"
        "    except SystemExit as ended:\n        assert ended.code == 2\n"
        "    assert 'torch' not in sys.modules and 'numba' not in sys.modules, words\n"
        "import socodet.reports.inspect\n"  # needs numba to draw views, but not torch
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.count("nowhere: ") == 4
    assert done.stderr.count("did you mean --recipe") == 1
    assert f"socodet {__version__}" in done.stdout
    for name, summary in COMMANDS.items():
        assert f" {name} {summary} " in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_in_the_list_of_commands_match_each_commands_help(name):
    module = importlib.import_module(f"socodet.commands.{name.replace(' ', '_').replace('-', '_')}")
    assert inspect.getdoc(getattr(module, module.__name__.split(".")[-1])).splitlines()[0] == COMMANDS[name]


def test_a_run_records_its_settings_and_logs(few_images, table, tmp_path):
    run = tmp_path / "run"
    flags = ["--views.2.size", "40", "--max-steps", "1", "--log-every", "1"]
    main(["pretrain", str(few_images), "--output", str(run), "--proposals", str(table), *FAST, *flags])
    described = json.loads((run / "run.json").read_text())
    assert described["recipe"]["sample"]["views"][2]["size"] == 40
    assert described["recipe"]["training"]["batch_size"] == 4
    assert described["versions"]["socodet"] == __version__
    (line,) = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    assert line["step"] == 1
    assert -8 <= line["loss"] <= 8
    assert sum(line["level_share"]) == pytest.approx(1)
    assert list((run / "tensorboard").iterdir())


@pytest.mark.parametrize("command", ["--help", "recipes", "pretrain --help"])
def test_a_closed_pipe_on_standard_output_is_no_error(command):
    reading, writing = os.pipe()
    os.close(reading)
    asked = [sys.executable, "-m", "socodet", *command.split()]
    done = subprocess.run(asked, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    said = [
        line for line in done.stderr.splitlines() if not line.startswith("loading the package")
    ]  # printed if the import was slow
    assert (done.returncode, said) == (141, [])


def test_a_closed_pipe_is_detected_on_macos(monkeypatch):
    """Its poll reports POLLHUP, and only if some event was asked for."""

    class Poll:
        def register(self, number, events):
            self.found = [(number, select.POLLHUP)] if events else []

        def poll(self, _timeout):
            return self.found

    monkeypatch.setattr(select, "poll", Poll)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert _stdout_is_closed()
        stream.write("discarded")


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_long_path_in_a_message_is_not_wrapped(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    path = "/data/a folder/" + "long/" * 30 + "image (1).png"
    assert path in error_of(capsys, "predict", "detector", "images", path, "--output", "found")
    assert f"not '{path}'" in error_of(capsys, "predict", "run", "images", "--output", "x", "--batch-size", path)


@pytest.mark.parametrize(
    ("flags", "expected"), [(["--epochs", "1"], 0.1), (["--epochs=49"], 4.9), (["--epochs", "60"], 5)]
)
def test_the_warm_up_is_a_tenth_of_a_short_run(flags, expected, few_images, table, tmp_path, capsys):
    run = tmp_path / "run"
    given = ["--recipe", "tiny", "--batch-size", "4", "--workers", "0", "--proposals", str(table), "--max-steps", "1"]
    main(["pretrain", str(few_images), "--output", str(run), *given, *flags])
    assert json.loads((run / "run.json").read_text())["recipe"]["training"]["warmup_epochs"] == expected
    said = f"warm-up  a tenth of so short a run: {expected} epochs; --warmup-epochs sets it"
    assert (said in capsys.readouterr().err) == (expected < 5)
    main(["pretrain", str(few_images), "--output", str(run), *given, *flags, "--resume"])
    assert "--warmup-epochs" not in capsys.readouterr().err  # a resumed run keeps its own value


def test_an_export_of_an_unfinished_run_says_so(few_images, table, tmp_path, capsys):
    run = str(tmp_path / "run")
    asked = ["pretrain", str(few_images), *FAST, "--proposals", str(table), "--output", run]
    main([*asked, "--max-steps", "1"])
    main(["export", run, "--output", str(tmp_path / "first.pth")])
    assert "note: the run is not finished; these are the weights after 1 of 2 steps" in capsys.readouterr().err
    main(asked)
    main(["export", run, "--output", str(tmp_path / "last.pth")])
    assert "not finished" not in capsys.readouterr().err


def test_a_command_that_exits_runs_atexit_functions():
    """Output piped elsewhere is complete, and the exit code is the command's."""
    script = "import atexit, sys; from socodet.cli import main; atexit.register(print, 'at exit'); main(); print('no')"
    for argv, code in ((["--version"], 0), (["xyz"], 2)):
        done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, "at exit")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error_and_their_numbers_are_not_reused(tmp_path, closed):
    """Otherwise a library that writes to standard error could write into an open file with the same descriptor."""
    script = (
        "import os; from socodet.cli import main; main(['recipes', 'tiny']); "
        "file = open('file', 'w'); os.write(1, b'printed'); os.write(2, b'said'); assert file.fileno() > 2"
    )
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(script)} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.replace("said", "")) == (0, "")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_one_line(few_images, tmp_path, capsys, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("socodet.pretraining.pretrain.build_soco", fail)
    said = error_of(capsys, "pretrain", few_images, "--output", tmp_path / "run", *FAST)
    assert "not enough memory" in said
    assert "resumes" in said


@pytest.mark.parametrize("argv", [("export", "https://host/a.pth"), ("pretrain", "s3://bucket/images")])
def test_urls_are_refused_with_advice_to_download(tmp_path, capsys, argv):
    said = error_of(capsys, *argv, "--output", tmp_path / "out")
    assert argv[1] in said
    assert "download" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("recipes --images folder", "--images"),
        ("inspect images --output page.html", "proposals, views, detections"),
        ("inspect --output page.html detections set", "socodet inspect detections"),
        ("report run --split test", "--split test"),
        ("reproduce own-data --data set --output out --weights-name mine", "--weights-name"),
        ("reproduce own-data --data set --output out --finetuning.seed 3", "--folds"),
        ("finetune set --output out --resume --overwrite", "--overwrite deletes"),
        ("pretrain images --output out --overwrite --resume", "--overwrite deletes"),
    ],
)
def test_flags_without_effect_or_in_conflict_are_refused(capsys, argv, said):
    assert said in error_of(capsys, *argv.split())


@pytest.mark.parametrize(
    "function", [socodet.finetune, lambda *run, **how: socodet.pretrain(run[0], "tiny", run[1], **how)]
)
def test_resume_and_overwrite_exclude_each_other_in_python(function, few_images, tmp_path):
    with pytest.raises(socodet.InputError, match=r"^resume keeps .* overwrite deletes"):
        function(few_images, tmp_path / "run", resume=True, overwrite=True)
