"""The recipe `auto` from the command line and from Python."""

import json
import re
import shlex

import pytest
import timm
import torch
from PIL import Image

import socodet
from socodet.cli import main
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.models.backbones import build_backbone
from socodet.pretraining import planning
from socodet.pretraining.recipes.choices import Given
from socodet.pretraining.step_time import BatchTooLargeError
from socodet.pretraining.survey import ImageSurvey, Machine
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.command_line import set_running_command
from socodet.runtime.progress import duration
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("narrow_networks")

NARROW = "--fpn-channels 8 --head-channels 8 --head-convs 1 --representation-size 16 "
NARROW += "--hidden-size 16 --embedding-size 8 --device cpu --workers 0"


@pytest.fixture
def images(tmp_path):
    """Six small grey photographs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted(photographs().glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            image.thumbnail((96, 96))
            image.convert("L").save(folder / path.name)
    return folder


@pytest.fixture
def half_a_second(monkeypatch):
    """A machine on which a step takes half a second."""
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, **__: 0.5)


def test_plan_follows_the_flag_for_whole_images(images, tmp_path, capsys):
    small = ["--backbone", "timm/test_resnet", "--views.0.size", "32", "--batch-size", "4"]
    command = ["pretrain", str(images), "--output", str(tmp_path / "run"), *small, "--epochs", "1", "--device", "cpu"]
    main([*command, "--architecture", "image", "--workers", "0"])
    printed = capsys.readouterr()
    assert "used instead of the planned values" not in printed.err
    assert re.search(r"network +timm/test_resnet alone", printed.err)
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert recipe["model"]["architecture"] == "image"
    assert (recipe["sample"]["boxes_per_image"], len(recipe["sample"]["views"])) == (1, 2)
    assert "--backbone-only" not in printed.out


@pytest.mark.usefixtures("half_a_second")
def test_dry_run_shows_the_plan_and_does_nothing(images, tmp_path, capsys):
    main(["pretrain", str(images), "--output", str(tmp_path / "run"), "--hours", "1", "--dry-run", "--device", "cpu"])
    plan, printed = capsys.readouterr()
    assert "--probe-every" not in plan
    for part in ("resnet18", "100% of 6 sampled images are grey", "7,200 steps", "60 min", "0.5 s per step"):
        assert part in plan
    assert "instead of the planned values" not in printed
    main(["pretrain", str(images), "--output", str(tmp_path / "run"), "--hours", "1", "--dry-run", "--device", "cpu"])
    assert capsys.readouterr().out == plan  # without that of the previous call
    probing = ["--hours", "1", "--dry-run", "--device", "cpu", "--probe-every", "1", "--probe-data", str(images)]
    main(["pretrain", str(images), "--output", str(tmp_path / "run"), *probing])
    assert "--probe-every" in capsys.readouterr().out  # the time that probing takes is unknown
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("half_a_second")
def test_flags_that_replace_planned_values_are_named(images, tmp_path, capsys):
    flags = ["--embedding-size=64", "--variance-weight", "1", "--views.2.size", "40", "--epochs", "50", "--dry-run"]
    main(["pretrain", str(images), "--output", str(tmp_path / "run"), *flags, "--device", "cpu"])
    lines = "".join(capsys.readouterr()).splitlines()
    (note,) = [line for line in lines if "instead of the planned values" in line]
    assert note.startswith("note: --embedding-size, --variance-weight, --views.2.size: ")
    replaced = {line.split("  ")[0]: line.rpartition("replaced by ")[2] for line in lines if "replaced by " in line}
    assert {row: reason.split()[0] for row, reason in replaced.items()} == {
        "network": "--embedding-size",
        "objective": "--variance-weight",
        "views": "--views.2.size",
    }


@pytest.mark.usefixtures("half_a_second")
@pytest.mark.parametrize("batch_size", ["--batch-size", "--batch_size"])
def test_plan_adapts_to_the_given_batch_backbone_and_first_view(images, tmp_path, batch_size):
    run = tmp_path / "run"
    given = [batch_size, "4", "--views.0.size=64", "--backbone", "timm/test_resnet", "--epochs", "100"]
    main(["pretrain", str(images), "--output", str(run), *given, *NARROW.split(), "--max-steps", "1"])
    recipe = json.loads((run / "run.json").read_text())["recipe"]
    assert recipe["model"]["backbone"] == "timm/test_resnet"
    assert [view["size"] for view in recipe["sample"]["views"]] == [64, 64, 32]
    assert recipe["sample"]["level_limits"] == pytest.approx([20 * 64 / 96, 32 * 64 / 96, 48 * 64 / 96])
    training = recipe["training"]
    assert training["base_lr"] * 4 / 256 == pytest.approx(8 * (4 / 2048) ** 0.5)
    steps = 100 * 6 // 4
    assert training["target_momentum"] == pytest.approx(0.5 ** (450 / max(steps, 1000)))


@pytest.mark.parametrize("wrong", ["output", "--start-from", "--proposals"])
def test_other_errors_are_found_before_a_step_is_timed(images, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, **__: pytest.fail("timed"))
    (tmp_path / "notes.txt").write_text("not weights, nor a table")
    output = tmp_path if wrong == "output" else tmp_path / "run"
    flags = {} if wrong == "output" else {wrong: str(tmp_path / "notes.txt")}
    with pytest.raises(SystemExit):
        main(["pretrain", str(images), "--output", str(output), "--epochs", "1", *sum(flags.items(), ())])
    given = {flag.strip("-").replace("-", "_"): value for flag, value in flags.items()}
    with pytest.raises(InputError, match=r"notes|holds files"):
        socodet.pretrain(images, "auto", output, epochs=1, show_progress=False, **given)


def test_batch_is_halved_until_it_fits(images, monkeypatch):
    tried = []

    def out_of_memory_above_16(recipe, *_, **__):
        tried.append(recipe.training.batch_size)
        if tried[-1] > 16:
            raise BatchTooLargeError("out of memory")
        return 0.5

    monkeypatch.setattr(planning, "seconds_per_step", out_of_memory_above_16)
    monkeypatch.setattr(planning, "this_machine", lambda _: Machine("cuda", 8.0))
    survey = ImageSurvey(count=5000, surveyed=48, short_side=200, grey=0, few_boxes=0)
    monkeypatch.setattr(planning, "survey_images", lambda *_, **__: survey)
    made, _ = planning.plan_run(open_images(images))
    assert tried == [256, 128, 64, 32, 16]
    assert made.recipe.training.batch_size == 16
    assert made.recipe.training.lr == pytest.approx(8 * (16 / 2048) ** 0.5)
    assert any(choice.what == "batch" and "32 do not fit" in choice.reason for choice in made.choices)
    with pytest.raises(BatchTooLargeError):
        planning.plan_run(open_images(images), Given(batch=64))


def test_the_backbone_is_the_resnet_of_the_file_to_start_from(images, tmp_path, monkeypatch):
    torch.save(build_backbone("resnet34")[0].state_dict(), tmp_path / "34.pth")
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, **__: 0.5)
    made, _ = planning.plan_run(open_images(images), Given(starts_from=tmp_path / "34.pth"))
    assert made.recipe.model.backbone == "resnet34"
    with pytest.raises(InputError, match="another backbone"):
        planning.plan_run(open_images(images), Given(starts_from=tmp_path / "34.pth", backbone="resnet50"))


def test_step_is_timed_with_the_given_micro_batches(images, tmp_path, monkeypatch, capsys):
    tried = []

    def out_of_memory_above_16(recipe, *_, **__):
        tried.append((recipe.training.batch_size, recipe.training.accumulate))
        if recipe.training.batch_size // recipe.training.accumulate > 16:
            raise BatchTooLargeError("out of memory")
        return 0.5

    monkeypatch.setattr(planning, "seconds_per_step", out_of_memory_above_16)
    command = ["pretrain", str(images), "--output", str(tmp_path / "run"), "--batch-size", "64", "--epochs", "90"]
    main([*command, "--accumulate", "4", "--dry-run", "--device", "cpu"])
    assert tried == [(64, 4)]
    plan, printed = capsys.readouterr()
    assert "instead of the planned values" not in printed
    assert [line.split()[1] for line in plan.splitlines() if line.startswith("micro-batches")] == ["4"]
    tried.clear()
    made, _ = planning.plan_run(open_images(images), Given(accumulate=4))
    assert tried == [(8, 4)]
    assert made.recipe.training.accumulate == 4


@pytest.mark.usefixtures("half_a_second")
def test_resumed_run_keeps_its_planned_recipe(images, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command = ["pretrain", str(images), "--output", str(run), "--epochs", "4", *NARROW.split(), "--batch-size", "4"]
    main([*command, "--max-steps", "1"])
    noted = json.loads((run / "run.json").read_text())
    recipe = noted["recipe"]
    assert shlex.split(noted["command"]) == ["socodet", *command, "--max-steps", "1"]
    assert (recipe["name"], recipe["training"]["batch_size"], recipe["training"]["epochs"]) == ("auto", 4, 4)
    assert recipe["model"]["fpn_channels"] == 8
    assert recipe["sample"]["views"][0]["photometric"]["hue"] == 0  # the images are grey
    assert recipe["objective"]["variance_weight"] > 0
    monkeypatch.setattr(planning, "plan_run", lambda *_, **__: pytest.fail("planned again"))
    main(command)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 6
    assert json.loads((run / "run.json").read_text())["recipe"] == recipe


def test_run_of_a_named_recipe_is_refused_before_planning(images, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    with set_running_command(["pretrain", "my images", "--recipe", "tiny", "--overwrite", "--output", "run"]):
        run.write_description({"recipe": to_json(socodet.recipe("tiny"))})
    run.save_checkpoint(1, {"step": 1})
    monkeypatch.setattr(planning, "survey_images", lambda *_, **__: pytest.fail("planned"))
    with pytest.raises(InputError) as caught:
        socodet.pretrain(images, "auto", run.path)
    assert "settings: recipe (auto now, tiny there);" in str(caught.value)
    assert "`socodet pretrain 'my images' --recipe tiny --output run`" in str(caught.value)  # without --overwrite


@pytest.mark.usefixtures("half_a_second")
def test_dry_run_says_if_a_run_would_be_resumed(images, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    command = ["pretrain", str(images), "--output", str(run), "--hours", "1", *NARROW.split(), "--batch-size", "4"]
    main([*command, "--max-steps", "1"])
    capsys.readouterr()
    main([*command, "--dry-run"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{run}: continues")
    assert "--hours" in line  # --hours is ignored, the run keeps its length
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    main(["pretrain", str(images), "--output", str(tmp_path / "new"), "--epochs", "9", "--dry-run", "--device", "cpu"])
    assert capsys.readouterr().out == ""  # only the first process prints


@pytest.mark.parametrize("method", ["table", "online"])
def test_plan_accounts_for_the_given_proposals(images, tmp_path, capsys, monkeypatch, method):
    """Those in a table take no time; online ones take time in every step, not before the first."""
    asked = []
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, online, **__: asked.append(online) or 0.5)
    survey = ImageSurvey(count=6, surveyed=6, short_side=96, grey=0, few_boxes=0.5, proposal_seconds=3600.0)
    monkeypatch.setattr(planning, "survey_images", lambda *_, **__: survey)
    table = tmp_path / "proposals.parquet"
    socodet.propose(images, table, settings=ProposalSettings("grid"), workers=1, show_progress=False)
    given = method if method == "online" else str(table)
    command = [
        "pretrain",
        str(images),
        "--epochs",
        "9",
        "--dry-run",
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "r"),
    ]
    main([*command, "--proposals", given])
    plan = capsys.readouterr().out
    assert asked == [method == "online"]
    (row,) = [line for line in plan.splitlines() if line.startswith("proposals ")]
    assert (str(table) in row, "50% of images" in row) == (method == "table", method == "online")
    assert "for the proposals" not in plan
    main(command)
    seconds = 6 * 3600 / planning.this_machine(torch.device("cpu")).cores
    assert f"after about {duration(seconds)} for the proposals" in capsys.readouterr().out


@pytest.mark.usefixtures("half_a_second")
def test_python_gives_the_same_recipe(images, capsys):
    recipe = socodet.recipe("auto", images=images, hours=2)
    assert recipe.training.steps(recipe.training.epochs, 6) == 14_400
    main(["recipes", "auto", "--images", str(images)])
    assert f"--batch-size {recipe.training.batch_size}" in capsys.readouterr().out
    with pytest.raises(InputError, match="images"):
        socodet.recipe("auto")


@pytest.mark.usefixtures("half_a_second")
def test_plan_for_the_cpu_mentions_a_gpu_that_torch_does_not_find(images, tmp_path, capsys, monkeypatch):
    (tmp_path / "gpus" / "0000:17:00.0").mkdir(parents=True)
    monkeypatch.setattr("socodet.training.devices.GPUS", tmp_path / "gpus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for device, named in (("auto", True), ("cpu", False)):
        main(["pretrain", str(images), "--output", str(tmp_path / "run"), "--dry-run", "--device", device])
        assert ("NVIDIA GPU" in capsys.readouterr().err) == named


def test_images_option_is_only_for_the_recipe_auto(images, capsys):
    with pytest.raises(SystemExit):
        main(["recipes", "tiny", "--images", str(images)])
    assert "--images" in capsys.readouterr().err


def test_hours_option_is_only_for_the_recipe_auto(images, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(images), "--output", str(tmp_path / "run"), "--recipe", "tiny", "--hours", "1"])
    assert ended.value.code == 2
    assert "--hours" in capsys.readouterr().err


def test_epochs_but_not_hours_set_the_length_of_a_named_recipe():
    training = socodet.recipe("tiny", epochs=20).training
    assert (training.epochs, training.warmup_epochs) == (20, 2)
    with pytest.raises(InputError, match="auto"):
        socodet.recipe("tiny", hours=1)


def test_several_processes_do_not_time_a_step(images, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(InputError, match=r"^hours works"):
        socodet.recipe("auto", images=images, hours=1)
    assert socodet.recipe("auto", images=images, epochs=50).training.epochs == 50


@pytest.mark.usefixtures("half_a_second")
def test_run_without_a_checkpoint_is_planned_again(images, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    first = planning.auto_recipe(open_images(images), run, Given(epochs=10))
    run.write_description({"recipe": to_json(first)})
    assert planning.auto_recipe(open_images(images), run, Given(epochs=100)).training.epochs == 100
    run.save_checkpoint(1, {"step": 1})
    for given in (None, Given(epochs=10), Given(hours=1)):
        assert planning.auto_recipe(open_images(images), run, given) == first
    with pytest.raises(InputError, match=r"a run of 10 epochs, not 100.*--start-from .*run --output another"):
        planning.auto_recipe(open_images(images), run, Given(epochs=100))


@pytest.mark.usefixtures("half_a_second")
@pytest.mark.parametrize("hours", ["nan", "inf", "1e307", "0", "-1"])
def test_invalid_hours_are_refused(images, tmp_path, capsys, hours):
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(images), "--output", str(tmp_path / "run"), f"--hours={hours}"])
    assert ended.value.code == 2
    assert "--hours" in capsys.readouterr().err


@pytest.mark.usefixtures("half_a_second")
def test_plan_that_starts_from_a_run_takes_its_sizes(images, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    sizes = ["--backbone", "timm/test_resnet", *NARROW.split()]
    main(
        [
            "pretrain",
            str(images),
            "--output",
            str(first),
            "--batch-size",
            "4",
            *sizes,
            "--epochs",
            "2",
            "--max-steps",
            "1",
        ]
    )
    main(
        [
            "pretrain",
            str(images),
            "--output",
            str(second),
            "--start-from",
            str(first),
            "--epochs",
            "2",
            "--max-steps",
            "1",
        ]
    )
    one, other = (json.loads((run / "run.json").read_text())["recipe"] for run in (first, second))
    assert other["model"] == one["model"]
    assert (one["training"]["backbone_lr"], other["training"]["backbone_lr"]) == (1, 0.1)


@pytest.mark.parametrize(("given", "other"), [(["--dry-run"], "--hours"), (["--hours", "1"], "--dry-run")])
def test_named_recipe_refuses_planning_flags_by_name(given, other, images, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(images), "--output", str(tmp_path / "run"), "--recipe", "tiny", *given])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert given[0] in printed
    assert other not in printed


@pytest.mark.usefixtures("half_a_second")
def test_unsuitable_weights_are_found_before_a_step_is_timed(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_, **__: pytest.fail("timed"))
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    asked = ["pretrain", str(images), "--output", str(tmp_path / "run"), "--start-from", str(tmp_path / "vit.pth")]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--dry-run"])
    assert ended.value.code == 2
    assert "vit.pth" in capsys.readouterr().err


@pytest.mark.usefixtures("half_a_second")
def test_weights_that_fit_the_given_sizes_are_accepted(images, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    sizes = ["--backbone", "timm/test_resnet", *NARROW.split(), "--epochs", "2", "--max-steps", "1"]
    main(["pretrain", str(images), "--output", str(first), *sizes])
    main(["export", str(first), "--output", str(tmp_path / "narrow.pth")])
    main(["pretrain", str(images), "--output", str(second), "--start-from", str(tmp_path / "narrow.pth"), *sizes])
    assert json.loads((second / "run.json").read_text())["recipe"]["training"]["backbone_lr"] == 0
