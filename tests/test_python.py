"""The Python API: a function for each command, recipes with changed values, and how results print."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from photograph_sets import coco_file

import socodet
from socodet.cli import COMMANDS, main
from socodet.errors import InputError, SettingError
from socodet.pretraining.recipes import describe_recipe
from socodet.runtime.settings import Settings

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_documented_function(name):
    function = getattr(socodet, name.replace(" ", "_").replace("-", "_"))
    assert callable(function)
    assert len(inspect.getdoc(function)) > 20


def test_public_names_exist_and_others_do_not():
    for name in socodet.__all__:
        assert getattr(socodet, name) is not None
    assert set(socodet.__all__) <= set(dir(socodet))
    with pytest.raises(AttributeError, match="pretrian"):
        socodet.pretrian  # noqa: B018


def test_the_docs_page_lists_every_function():
    assert [name for name in socodet.__all__ if name[0].islower() and f"`{name}`" not in PAGE] == []


def test_type_checkers_see_every_public_name():
    """For them `import b as b` is public, but `import a as b` is private unless `__all__` contains b as a literal."""
    tree = ast.parse(Path(socodet.__file__).read_text())
    imports = [one for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for one in node.names]
    public = {one.asname for one in imports if one.asname == one.name}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(node.value, ast.List):
            public |= {one.value for one in node.value.elts if isinstance(one, ast.Constant)}
    assert set(socodet.__all__) <= public


def test_the_repr_of_a_dataset_is_short(tmp_path):
    shown = repr(socodet.open_detection_set(coco_file(tmp_path / "set.json", masks=False)))
    assert "set" in shown
    assert "6 images" in shown
    assert len(shown) < 100


def test_arguments_of_studies_can_be_built_from_the_package(tmp_path):
    given = socodet.Weights("resnet50.pth", "resnet50")
    assert given == socodet.Weights(Path("resnet50.pth"), "resnet50")
    file = coco_file(tmp_path / "set.json", masks=False)
    settings = socodet.FinetuneSettings("faster_rcnn_fpn", iterations=1)
    runs = socodet.row_detectors(file, file, settings=settings, show_progress=False)
    assert (runs.settings, len(runs.validation)) == (settings, 6)
    with pytest.raises(InputError, match=r"row_detectors: .*settings"):
        socodet.row_detectors(file, file)


def test_no_subpackage_hides_a_function():
    """Importing `socodet.x` sets the package's attribute x for everybody."""
    for name in socodet.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"socodet.{name}")


def test_importing_the_package_imports_almost_nothing():
    code = (
        "import sys, socodet, logging; "
        "print(len([m for m in sys.modules if m.split('.')[0] in ('torch','numpy','tyro','PIL')]), "
        "len(logging.getLogger('socodet').handlers))"  # later changes are the program's own
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]


def test_a_recipe_with_other_values():
    tiny = socodet.recipe("tiny")
    other = tiny.with_(
        epochs=50,
        views={2: {"size": 64, "photometric": {"hue": 0.0}}},
        proposals={"method": "grid"},
        crop_scale=[0.6, 1.0],
        backbone="resnet34",
        loss="infonce",
    )
    assert (other.training.epochs, other.training.warmup_epochs) == (50, min(tiny.training.warmup_epochs, 5))
    assert [view.size for view in other.sample.views] == [tiny.sample.views[0].size, tiny.sample.views[1].size, 64]
    assert other.sample.views[2].photometric.hue == 0
    assert other.sample.views[2].window == tiny.sample.views[2].window
    assert (other.proposals.method, other.sample.crop_scale) == ("grid", (0.6, 1.0))
    assert (other.model.backbone, other.objective.loss) == ("resnet34", "infonce")
    assert tiny == socodet.recipe("tiny")  # the original is unchanged
    assert tiny.with_() == tiny
    assert tiny.with_(epochs=1).training.warmup_epochs == 0.1
    assert tiny.with_(epochs=1, warmup_epochs=1).training.warmup_epochs == 1
    by_hand = dataclasses.replace(tiny, training=dataclasses.replace(tiny.training, base_lr=0.5))
    assert tiny.with_(base_lr=0.5) == by_hand
    first = {0: {"size": 64}}
    both = tiny.with_(views=first, **{"views.2.size": 80, "proposals.method": "grid"})
    assert both == tiny.with_(views={0: {"size": 64}, 2: {"size": 80}}, proposals={"method": "grid"})
    assert first == {0: {"size": 64}}
    with pytest.raises(AttributeError, match=r"\.training\.epochs"):
        tiny.epochs  # noqa: B018
    assert not hasattr(tiny, "nothing")
    assert pickle.loads(pickle.dumps(tiny)) == tiny


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochz": 3}, "did you mean epochs"),
        ({"views": {2: {"sizes": 3}}}, "did you mean size"),
        ({"lr": 0.1}, "did you mean base_lr"),
        ({"zzz": 1}, r"the closest of \d+ are [a-z_]+, [a-z_]+, [a-z_]+; print\(recipe\)"),
        ({"views": [{"size": 64}] * 3}, r"views=\{0: "),
        ({"views.2.sizes": 64}, "did you mean size"),
        ({"views.x": 64}, "there are 3 views"),
        ({"epochs": 3, "epochs.a": 1}, "epochs.a: epochs is given as a whole"),
        ({"views": {2: {"size": 64}}, "views.2.size": 96}, "twice"),
        ({"views": {7: {"size": 96}}}, "views.7: no such setting; there are 3 views, 0 to 2"),
        ({"views": {2: {"size": 0.5}}}, r"^views\.2\.size must be a whole number"),
        ({"views": {0: {"photometric": {"hue": 3}}}}, r"^views\.0\.photometric\.hue must be between"),
        ({"blur_probability": 0.5}, r'write views=\{0: \{"photometric": \{"blur_probability": \.\.\.\}\}\}'),
        ({"views": {1: {"blur_probability": 0.5}}}, r'write views=\{1: \{"photometric": \{"blur_probability"'),
        ({"views": {1: {"crop_scale": (0.5, 1)}}}, r"write crop_scale=\.\.\."),
        ({"max_scale": 0.5}, r'write proposals=\{"max_scale": \.\.\.\}'),
        ({"proposals": {"method": "grids"}}, r"^proposals\.method must be .*did you mean grid"),
        ({"epochs": {"a": 1}}, "^epochs must be a number"),
        ({"loss": object}, r"socodet\.register"),
        ({"backbone": object}, r"socodet\.register"),
        ({"epochs": -1}, "epochs must be above 0, not -1"),
        ({"epochs": 1e300}, "epochs must be at most 1,000,000,000, not 1e"),
        ({"epochs": "many"}, "epochs must be a number, not 'many'"),
        ({"views": {0: {"size": 1}}}, "size must be between"),
        ({"backbone": "resnet51"}, "did you mean"),
        ({"epochs": 5, "warmup_epochs": 6}, "warmup_epochs must be at most epochs"),
    ],
)
def test_wrong_changes_to_a_recipe_are_one_clear_line(changes, said):
    with pytest.raises(SettingError, match=said):
        socodet.recipe("tiny").with_(**changes)


def test_the_recipe_auto_needs_images():
    with pytest.raises(InputError, match="say where they are"):
        socodet.recipe("auto")
    with pytest.raises(InputError, match="did you mean tiny"):
        socodet.recipe("tinny")


def test_a_recipe_prints_one_setting_per_line_like_the_command():
    tiny = socodet.recipe("tiny").with_(views={2: {"size": 80}})
    lines = str(tiny).split("\n")
    assert {"--views.2.size 80", f"--batch-size {tiny.training.batch_size}", "--proposals.method single"} <= {*lines}
    assert max(map(len, lines)) < 100
    command = describe_recipe(tiny).split("\n")[-len(lines) + 1 :]
    assert [line.split()[0] for line in command] == [line.split()[0] for line in lines[1:]]
    assert "views.2.size" in tiny._repr_html_()
    long = tiny.with_(target_momentum=0.7320428479728127, warmup_epochs=6.0)
    assert {"--target-momentum 0.732043", "--warmup-epochs 6"} <= {*str(long).split("\n")}
    assert "--target-momentum 0.7320428479728127" in describe_recipe(long)


def test_results_print(tmp_path):
    read = socodet.convert(coco_file(tmp_path / "set.json", ("chelsea", "rocket"), masks=False))
    assert "2 images" in str(read)
    run = socodet.PretrainResult(tmp_path / "a<b", 1, 2, "SIGTERM", (), 0.5)
    assert str(run) == f"{tmp_path / 'a<b'}: stopped by SIGTERM after 1 of 2 steps"
    scores = socodet.Evaluation({"box_AP": 12.345}, (), {"cat": {"objects": 3, "box_AP": 12.345}})
    assert "12.3" in str(scores)
    assert "cat" in str(scores)
    told = {"detector": "fcos_fpn", "stopped_by": None, "report": None, "unreadable": (), "seconds": 1.0}
    scored = socodet.FinetuneResult(tmp_path, steps=4, total_steps=4, evaluation=scores, **told)
    assert "box AP 12.35 of 100" in str(scored)
    best = dataclasses.replace(scored, best=(2, 7.256))
    assert "box AP 7.26 of 100 at step 2" in str(best)


def test_help_explains_every_field_of_settings():
    text = inspect.getdoc(socodet.FinetuneSettings)
    for field in dataclasses.fields(socodet.FinetuneSettings):
        about = text[text.index(f"\n{field.name} = ") :].split("\n")[2]
        assert about.startswith("    ")
        assert len(about) > 20
    assert "\nbatch_size = 16\n    Images per step" in text
    public = [getattr(socodet, name) for name in socodet.__all__]
    for cls in (one for one in public if isinstance(one, type) and issubclass(one, Settings)):
        own = inspect.getdoc(cls).split("explains each", 1)[-1]
        assert "--" not in own  # flags are arguments in Python
        for field in dataclasses.fields(cls):  # inherited ones too
            about = re.search(rf"^{field.name}\b.*\n    (\S.*)", own, re.M)
            assert about, (cls, field.name)


def test_doctor_prints_the_same_as_the_command(capsys):
    found = socodet.doctor()
    with contextlib.suppress(SystemExit):  # on a machine where something is scarce
        main(["doctor"])
    ours, theirs = str(found).splitlines(), capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in ours] == [line.split("  ")[0] for line in theirs]
    assert found[0].what in found._repr_html_()


def test_recipes_print_with_their_descriptions():
    names = socodet.recipes()
    assert names[:2] == ["auto", "tiny"]
    assert str(names).count("\n") == len(names) - 1
    assert "minutes on two CPU cores" in str(names)
    assert "minutes on two CPU cores" in names._repr_html_()
