"""The command line: finds the command and says in one line what went wrong."""

import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence

from socodet._version import __version__
from socodet.commands.ablate import ablate
from socodet.commands.demo import demo
from socodet.commands.evaluate import evaluate
from socodet.commands.export import export
from socodet.commands.finetune import finetune
from socodet.commands.inspect import inspect
from socodet.commands.pack import pack
from socodet.commands.parsing import goes_on
from socodet.commands.predict import predict
from socodet.commands.pretrain import pretrain
from socodet.commands.probe import probe
from socodet.commands.propose import propose
from socodet.commands.recipes import recipes
from socodet.commands.report import report
from socodet.commands.reproduce import reproduce
from socodet.errors import InputError

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    f.__name__: f
    for f in (
        *(propose, pretrain, finetune, evaluate, predict, export),
        *(probe, report, ablate, reproduce, inspect, recipes, demo, pack),
    )
}
RESUMABLE = ("propose", "pretrain", "finetune", "predict", "ablate", "reproduce", "demo", "pack")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `socodet`. Exit code 2 and one line for what the user can mend; --debug shows where it arose."""
    # Threads that wait for each other asleep: awake, they keep the cores from the data workers and from whatever
    # else runs there, and a step takes several times as long. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no figure is worth an error where the terminal lacks its sign
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_usage(), flush=True)
            raise SystemExit(0 if arguments else 2)
        if arguments[0] == "--version":
            print(f"socodet {__version__}", flush=True)
            return
        if arguments[0] not in COMMANDS:
            raise InputError(f"{arguments[0]}: no such command; choose one of {', '.join(COMMANDS)}")
        COMMANDS[arguments[0]](arguments[1:])
        sys.stdout.flush()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"socodet: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise SystemExit(141) from None
        if debug:
            traceback.print_exc()
        where = error.filename or "a file"
        print(
            f"socodet: error: {where}: {error.strerror or error}; check that it can be read or written there, and "
            "that the disk is not full",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print(f"socodet: interrupted{goes_on(arguments) if arguments[0] in RESUMABLE else ''}", file=sys.stderr)
        raise SystemExit(130) from None


def _nobody_reads() -> bool:
    """Whether standard output was closed by what read it, such as `head`; what is still unwritten then goes nowhere."""
    try:
        out = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, AttributeError):  # no file, or no such question on this system
        return False
    poll.register(out, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True


def _usage() -> str:
    lines = [f"  {name:<10} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: socodet COMMAND ...",
            "",
            "Pretrain object detectors without labels (SoCo, NeurIPS 2021).",
            "",
            *lines,
            "",
            "socodet COMMAND --help lists a command's flags; --debug shows the traceback of an error; --version.",
        ]
    )
