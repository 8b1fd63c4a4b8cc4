"""The command line: runs a command and reports errors in one line."""

import contextlib
import importlib
import io
import json
import logging
import os
import re
import select
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from socodet._version import __version__
from socodet.commands.config_file import as_yaml, name_config_file_in_errors, with_config
from socodet.commands.flags import flags_of, name_flags_in_errors
from socodet.commands.help import help_of
from socodet.commands.messages import as_json, exit_if_stopped, refuse_unwritten, resume_hint
from socodet.commands.parsing import HELP, OLD_NAMES, parse, values_of, with_current_flag_names, without
from socodet.errors import InputError, is_out_of_memory, suggest_names
from socodet.runtime.command_line import set_running_command
from socodet.runtime.extensions import trust
from socodet.runtime.limits import limit_threads
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_slow_imports
from socodet.runtime.process import exit_process, ignore_stderr_errors, open_standard_streams, raise_open_files
from socodet.runtime.world import world_from_environment
from socodet.training.settings import RESUME_OR_OVERWRITE
from socodet.weights.hub import HUB, with_downloads

COMMANDS = {
    "propose": "Run selective search on every image below a folder, and write a proposal table.",
    "pretrain": "Pretrain backbone, FPN and box head on a folder of images, without labels.",
    "finetune": "Fine-tune a detector on annotated images, or compare initial weights, seeds and label fractions.",
    "evaluate": "Score a fine-tuned detector on an annotated dataset.",
    "predict": "Detect objects in new images with a fine-tuned detector.",
    "convert": "Write an annotated dataset of any known format as a COCO file, and report what was left out and why.",
    "export": "Write pretrained modules, or a fine-tuned detector, as a file for another framework.",
    "push": "Upload a run to the Hugging Face Hub: its weights as safetensors, its settings, log and a model card.",
    "probe": "Measure how much a run's network knows about annotated objects, without fine-tuning.",
    "report": "Write one HTML page about runs: settings, curves, and what their networks see in images.",
    "ablate": "Pretrain every row of one of the paper's ablation tables at a budget, and write the table.",
    "reproduce own-data": "Measure how much pretraining on a labelled dataset's own images helps when labels are few.",
    "inspect": "Draw images with their proposals, or the crops (views) that a recipe cuts from them for training.",
    "inspect detections": "Draw a detector's true and false positives and missed objects beside the annotations.",
    "recipes": "List the recipes, or print every field of one.",
    "demo": "Run every step on a few photographs: propose, pretrain, export, fine-tune, and a page with the results.",
    "doctor": "Check the installation and the machine: versions, devices, decoder, kernels, cores, disk, limits.",
    "pack": "Shrink images once, into tar shards that are read in sequence.",
}
"""What --help prints. Each command is the function of that name in the file of that name in `commands`, imported only
to run it: tyro's own subcommands would import all of them, with torch, to print the help."""
EVERY_COMMAND = (
    "Every command has: --config FILE to take flags from YAML or TOML; --print-config to print all flags as such a "
    "file; --import MODULE to allow your module where a file names its code (module:name); --json to print the result "
    "as JSON; --quiet to print only warnings; --verbose to print every value used; --debug to show the traceback of an "
    "error. socodet --completion SHELL prints a completion script for bash, zsh or fish; socodet --version the version."
)
_ADDRESS = re.compile(r"(--[\w.-]+=)?([\w.-]+=)?(https?|ftp|s3|gs)://")
_HOME = re.compile(r"^((?:--[\w.-]+=)?(?:[\w.-]+=)?)~/")
RESUMABLE = ("propose", "pretrain", "finetune", "predict", "ablate", "reproduce", "demo", "pack")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `socodet`. Errors that the user can fix are one line and exit code 2; --debug adds the traceback.

    Without `argv`, it uses the process's own arguments and ends the process.
    """
    try:
        _main(sys.argv[1:] if argv is None else argv)
    except SystemExit as ended:
        if argv is None and isinstance(ended.code, int):
            exit_process(ended.code)
        raise
    if argv is None:
        exit_process(0)


def _main(argv: Sequence[str]) -> None:
    # Threads that wait for each other must sleep: by spinning they take the cores from the data workers, and a step
    # takes several times as long. The variable is read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    limit_threads()
    open_standard_streams()
    ignore_stderr_errors()
    raise_open_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack a character
    arguments = list(argv)
    debug = "--debug" in arguments
    quiet, verbose = "--quiet" in arguments, "--verbose" in arguments
    LOGGER.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    arguments = [a for a in arguments if a not in ("--debug", "--quiet", "--verbose")]
    hint = resume_hint("--overwrite" in arguments) if arguments and arguments[0] in RESUMABLE else ""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_usage(), flush=True)
            if arguments:
                return
            raise SystemExit(2)
        if arguments[0] == "--version":
            print(f"socodet {__version__}", flush=True)
            return
        flag, equals, shell = arguments[0].partition("=")
        if flag == "--completion":
            _print_completion(shell if equals else arguments[1] if len(arguments) == 2 else "")
        prints_as_it_goes = arguments[0] == "doctor"
        with contextlib.nullcontext() if prints_as_it_goes else log_slow_imports(), set_running_command(arguments):
            run_command(arguments)
        sys.stdout.flush()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"socodet: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            raise SystemExit(141) from None
        line = _machine_error(error, hint)
        if line is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"socodet: error: {line}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print(f"socodet: interrupted{hint}", file=sys.stderr)
        raise SystemExit(130) from None


def _machine_error(error: Exception, hint: str) -> str | None:
    """The message for an error of the machine; None for any other error. hint: says that the command resumes."""
    if is_out_of_memory(error):
        return (
            "not enough memory; free some, lower --workers or the batch size if the command has them, or use a "
            f"larger machine{hint}"
        )
    if not isinstance(error, OSError):
        return None
    where = error.filename or "a file"
    fix = "check that it can be read or written, and that the disk is not full"
    return f"{where}: {error.strerror or error}; {fix}"


def run_command(arguments: Sequence[str]) -> None:
    """Runs the command named by the first arguments with the rest. InputError says what is wrong with them."""
    two_words = " ".join(arguments[:2])
    name = two_words if two_words in COMMANDS else arguments[0]
    begun = [command for command in COMMANDS if command.split()[0] == name]
    if len(begun) == 1 and HELP & set(arguments[1:2]):
        name, arguments = begun[0], [*begun[0].split(), *arguments[1:]]
    if name not in COMMANDS:
        raise InputError(f"{name}: no such command; {_instead(arguments)}")
    command, module = command_named(name)
    argv = [_with_dashes(word) for word in arguments[len(name.split()) :] if word != "--print-config"]
    to_json = "--json" in argv and name != "doctor"  # doctor has its own --json, because it prints each finding at once
    argv = [word for word in argv if word != "--json"] if to_json else argv
    if argv[-1:] == ["--import"]:
        raise InputError(f"{name}: --import needs a module; give one")
    trust(values_of("--import", argv), argv)  # before a file adds to them
    argv = with_current_flag_names(name, without("--import", argv), lambda: flags_of(command))
    typed, files, file = argv, values_of("--config", argv), None
    if files or "--config" in argv:
        if len(files) != 1:
            raise InputError(f"{name}: --config takes one file; give one")
        file = Path(_with_home(files[0]))
        argv = with_config(file, without("--config", argv), flags_of(command), OLD_NAMES.get(name, {}))
    argv = [_with_home(word) for word in argv]
    _check_arguments(name, argv)
    if name != "push" and any(HUB in word for word in argv) and not ({"--print-config", *HELP} & set(arguments)):
        argv = with_downloads(argv)
    with name_config_file_in_errors(file, typed, argv):
        defaults = module.defaults(argv) if hasattr(module, "defaults") else {}
    if HELP & set(argv):
        flags = flags_of(partial(command, **defaults))
        print(help_of(command, name, flags, getattr(module, "EVERYDAY", ()), full="--help-all" in argv))
        return
    with name_config_file_in_errors(file, typed, argv):
        parsed = parse(command, name, argv, defaults)
    if "--print-config" in arguments or LOGGER.isEnabledFor(logging.DEBUG):
        given = signature(command).bind(*parsed.args, **parsed.keywords).arguments
        config = as_yaml(name, flags_of(partial(command, **defaults)), given)
        if "--print-config" in arguments:
            print(config)
            return
        LOGGER.debug(config)
    hidden = contextlib.redirect_stdout(io.StringIO()) if to_json else contextlib.nullcontext()
    with hidden, name_flags_in_errors(name, command):
        found = parsed()
    if to_json and world_from_environment(rendezvous=False).is_first:
        print(json.dumps(as_json(found), indent=2))
    refuse_unwritten(found)
    exit_if_stopped(getattr(found, "stopped_by", None))


def _with_dashes(word: str) -> str:
    """A flag with hyphens in place of underscores."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _with_home(word: str) -> str:
    """Expands `~/` where a shell does not: in a file, and after an equals sign."""
    return _HOME.sub(lambda found: found[1] + os.path.expanduser("~/"), word)


def _check_arguments(name: str, argv: Sequence[str]) -> None:
    """InputError for an empty argument, which as a path would be the working directory, for a URL, and for two flags
    that contradict each other.
    """
    if {"--resume", "--overwrite"} <= {*argv}:
        raise InputError(f"{name}: {RESUME_OR_OVERWRITE}")
    for before, word in zip(["", *argv], argv, strict=False):
        if "\0" in word:
            raise InputError(f"{name}: {word!r} contains a NUL character; remove it")
        flag, equals, value = (word or before).partition("=")
        if name != "push" and _ADDRESS.match(word):
            raise InputError(f"{name}: {word}: URLs are not supported; download it, and give the file or folder")
        if word == "" or (flag.startswith("--") and equals and not value):
            which = flag if flag.startswith("--") else "an argument"
            raise InputError(f"{name}: {which} is empty; give a value (is a variable of the shell unset?)")


def _instead(arguments: Sequence[str]) -> str:
    """Suggests a command: compares the first two words with two-word commands, and the first word with all."""
    two = [name for name in COMMANDS if " " in name]
    first = [name for name in two if name.split()[0] == arguments[0]]
    if len(first) == 1:
        return f"did you mean {first[0]}?"
    by_both = suggest_names(" ".join(arguments[:2]), two)
    return by_both if by_both.startswith("did") else suggest_names(arguments[0], COMMANDS)


def _print_completion(shell: str) -> NoReturn:
    """Prints the script that completes commands and flags in a shell."""
    from socodet.commands.completion import SHELLS, completion_script

    if shell not in SHELLS:
        raise InputError(f"--completion {shell}: {suggest_names(shell, SHELLS)}")
    first = {name.split()[0]: name for name in reversed(COMMANDS)}  # only the first word of a two-word command
    print(completion_script(shell, {word: command_named(name)[0] for word, name in sorted(first.items())}))
    raise SystemExit


def command_named(name: str) -> tuple[Callable[..., Any], ModuleType]:
    """A command's function and its module."""
    function = name.replace(" ", "_").replace("-", "_")
    module = importlib.import_module(f"socodet.commands.{function}")
    return getattr(module, function), module


def _stdout_is_closed() -> bool:
    """Whether standard output was closed by its reader, such as `head`; unwritten output is then discarded."""
    try:
        out = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, AttributeError):  # not a file, or no poll on this system
        return False
    poll.register(out, select.POLLOUT)  # macOS reports nothing unless an event is given, and POLLHUP for POLLERR
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True


def _usage() -> str:
    lines = [
        line
        for name, summary in COMMANDS.items()
        for line in textwrap.wrap(f"  {name:<20}{summary}", 80, subsequent_indent=" " * 22)
    ]
    return "\n".join(
        [
            "usage: socodet COMMAND [...]",
            "",
            "Pretrain object detectors without labels (SoCo, NeurIPS 2021).",
            "",
            *lines,
            "",
            "socodet COMMAND --help shows a command's everyday flags, --help-all all of them.",
            "",
            *textwrap.wrap(EVERY_COMMAND, 80, break_on_hyphens=False),
        ]
    )
