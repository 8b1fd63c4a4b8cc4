"""Wrong arguments of public functions are refused in one line, before anything is done."""

import inspect
import logging
import pickle
import random
import re
import runpy
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Literal

import numpy as np
import pytest

import socodet
import socodet.runtime.log as log_module
from socodet.cli import COMMANDS, command_named
from socodet.commands.flags import flags_of
from socodet.errors import ArgumentError, InputError
from socodet.runtime.arguments import checked
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_note


class Sink:
    def write(self, step, line):
        pass

    def close(self):
        pass


class ForeignPath:
    """A path of another package's class."""

    def __fspath__(self):
        return "a/b"


def test_public_functions_keep_signature_help_and_types_and_refuse_unknown_arguments():
    functions = {name: getattr(socodet, name) for name in socodet.__all__}
    functions = {name: function for name, function in functions.items() if isinstance(function, FunctionType)}
    assert len(functions) > 20
    for name, function in functions.items():
        inner = inspect.unwrap(function)
        assert inspect.signature(function) == inspect.signature(inner)
        assert inspect.getdoc(function) == inspect.getdoc(inner)
        assert typing.get_type_hints(function) == typing.get_type_hints(inner)
        assert pickle.loads(pickle.dumps(function)) is function
        with pytest.raises(ArgumentError, match=f"^{name}: nonsense: no such argument"):
            function(nonsense=1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: socodet.pretrain(["a.jpg"], "tiny", "out"), "a.jpg: no such image file"),
        (lambda: socodet.pretrain(None, "tiny", "out"), "pretrain: images must be .* not None"),
        (lambda: socodet.pretrain(np.zeros((2, 8, 8, 3)), "tiny", "out"), r"images\[0\] must be a path, not"),
        (lambda: socodet.propose(3, "out"), "propose: images must be .* not 3"),
        (lambda: socodet.pretrain("images", None, "out"), "recipe must be of type Recipe or text, not None"),
        (lambda: socodet.pretrain("images", {"epochs": 3}, "out"), r"write socodet\.recipe\(NAME\)\.with_\("),
        (lambda: socodet.pretrain("images", "tiny", None), "output must be a path, not None"),
        (lambda: socodet.pretrain("images", "tiny", "out", limit="ten"), "limit must be a whole number or None, not "),
        (lambda: socodet.pretrain("images", "tiny", "out", limit=True), "limit must be a whole number"),
        (lambda: socodet.pretrain("images", "tiny", "out", epochs="3"), "epochs must be a number or None, not '3'"),
        (lambda: socodet.pretrain("images", "tiny", "out", overwrite="no"), "overwrite must be True or False"),
        (lambda: socodet.pretrain("images", "tiny", "out", sinks=Sink()), r"write sinks=\[\.\.\.\]"),
        (lambda: socodet.pretrain("images", "tiny", "out", sinks=[3]), r"sinks\[0\] must be .*write and close, not 3"),
        (lambda: socodet.pretrain("images", "tiny", "out", sinks=[Sink]), r"sinks\[0\] must be .* the class Sink"),
        (lambda: socodet.pretrain("images", "tiny", "out", execution={"device": "cpu"}), r"write ExecutionSettings\("),
        (lambda: socodet.pretrain("images", "tiny", "out", epoch=3), "epoch: .*did you mean epochs"),
        (lambda: socodet.pretrain("images", "tiny", "out", batch_size=8), r"with_\(batch_size=\.\.\.\)"),
        (lambda: socodet.pretrain("images", "tiny", "out", batchsize=8), r"did you mean batch_size.*with_\("),
        (lambda: socodet.pretrain("images"), "'recipe'"),
        (lambda: socodet.propose("images", "out", settings={}), r"write ProposalSettings\("),
        (lambda: socodet.finetune("set", "out", {"epochs": 3}), r"settings must be .*write FinetuneSettings\("),
        (lambda: socodet.finetune("set", "out", socodet.FinetuneSettings), r"write FinetuneSettings\("),
        (lambda: socodet.finetune("set", "out", detector="x"), r"settings=FinetuneSettings\(detector=\.\.\.\)"),
        (lambda: socodet.finetune("set", "out", device="cpu"), r"execution=ExecutionSettings\(device=\.\.\.\)"),
        (lambda: socodet.load_pretrained(None, "weights.pth"), "detector must be of type Module, not None"),
        (lambda: socodet.load_detector("run", checkpoint="bset"), "checkpoint must be .*did you mean best"),
        (lambda: socodet.report("run", "report.html"), r"runs must be a list; write runs=\[\.\.\.\]"),
        (lambda: socodet.predict("run", [np.zeros((8, 8, 3))], "out"), r"predict: images\[0\] must be a path, not"),
        (lambda: socodet.FinetuneSettings(epoch=3), "FinetuneSettings: epoch: .*did you mean epochs"),
        (lambda: socodet.FinetuneSettings(detector="fasterrcnn"), "did you mean .*faster_rcnn_fpn"),
    ],
)
def test_wrong_arguments_are_one_line(call, said):
    with pytest.raises(InputError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_values_of_usual_types_are_accepted():
    def takes(
        count: int,
        path: str | Path | None = None,
        *more: int,
        share: float = 1,
        flag: bool = False,
        many: Sequence[float] = (),
        choice: Literal["a", "b"] = "a",
        own: Callable[[], int] | None = None,
        **others: str,
    ) -> tuple[object, ...]:
        return count, path, share, flag, choice

    function = checked(takes, __name__, "takes")
    assert function(np.int64(3), ForeignPath(), share=np.float32(0.5)) == (3, Path("a/b"), 0.5, False, "a")
    assert function(3, "a", "more", share=2, flag=np.True_, choice="b", others=3) == (3, "a", 2, True, "b")
    for many in ([1, 2.5], (), range(3), np.arange(3)):
        function(1, many=many, own=len)
    for wrong in ({"many": "12"}, {"many": {1: 2}}, {"many": [True]}, {"choice": "c"}, {"flag": 2}, {"share": "1"}):
        with pytest.raises(ArgumentError, match=f"^takes: {next(iter(wrong))}"):
            function(1, **wrong)


def test_an_existing_log_level_is_kept(monkeypatch):
    logger = logging.getLogger("socodet")
    for level, kept in ((logging.WARNING, logging.WARNING), (logging.NOTSET, logging.INFO)):
        with monkeypatch.context() as patch:
            for name, value in (("handlers", []), ("propagate", True), ("level", level)):
                patch.setattr(logger, name, value)
            runpy.run_path(log_module.__file__)
            assert (logger.level, len(logger.handlers), logger.propagate) == (kept, 1, False)


@pytest.mark.parametrize(
    ("said", "in_python"),
    [
        (
            "out: exists; give another --output or pass --overwrite",
            "out: exists; give another output or pass overwrite=True",
        ),
        ("hold a share of it back with --val-share 0.2.", "hold a share of it back with val_share=0.2."),
        (
            "go on with socodet finetune --init, or --val-share 0.2 (socodet export SET --format timm)",
            "go on with socodet finetune --init, or val_share=0.2 (socodet export SET --format timm)",
        ),
        ("add --import own to the command; pass --resume", "add --import own to the command; pass resume=True"),
        ("lower --base-lr, or raise --target-momentum.", "lower base_lr, or raise target_momentum."),
        ("/data/--x/a--b.txt: is damaged", "/data/--x/a--b.txt: is damaged"),
    ],
)
def test_messages_name_arguments_and_not_flags(said, in_python):
    def failing():
        raise InputError(said)

    with pytest.raises(InputError) as raised:
        checked(failing, "socodet", "failing")()
    assert str(raised.value) == in_python


def test_notes_name_arguments_instead_of_flags_inside_public_functions(capsys):
    def inner():
        log_note("lower --base-lr")

    def outer():
        checked(inner, "socodet", "inner")()
        LOGGER.warning("%s sets it", "--evaluation.every")
        raise InputError("out: give another --output")

    with pytest.raises(InputError, match="another output"):
        checked(outer, "socodet", "outer")()
    log_note("lower --base-lr")  # as on the command line
    assert capsys.readouterr().err.splitlines() == ["lower base_lr", "evaluation.every sets it", "lower --base-lr"]


def test_messages_say_pass_only_for_flags_without_a_value():
    """In Python `pass --resume` becomes resume=True, which would be wrong for a flag with a value."""
    sources = (path.read_text() for path in Path(socodet.__file__).parent.rglob("*.py"))
    passed = {flag for text in sources for flag in re.findall(r"pass --([a-z-]+)", text)}
    flags = [flag for name in COMMANDS for flag in flags_of(command_named(name)[0])]
    assert {"resume", "overwrite"} <= passed <= {flag.name for flag in flags if flag.values == 0}


def test_flags_are_read_anew_after_a_docstring_has_changed(monkeypatch):
    """Under pytest, tyro compares what it cached with a new result whenever this random number is below 0.1."""
    monkeypatch.setattr(random, "random", lambda: 0.0)

    @dataclass
    class Settings:
        """As on the command line."""

        number: int = 3
        """A number."""

    def command(settings: Settings):
        """A command."""

    flags = flags_of(command)
    assert [(flag.names, flag.help) for flag in flags] == [(("--settings.number",), "A number.")]
    Settings.__doc__ = "As in Python."
    assert flags_of(command) == flags
