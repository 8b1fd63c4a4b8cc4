"""Runs `socodet` commands in forks of a process that has imported everything, so each starts in milliseconds.

As a program, it reads one JSON object per line: {"run": {...}} starts a command and answers with its process id;
{"wait": PROCESS, "seconds": S} answers with its exit status (negative for a signal), or null if it is still running.
"""

import json
import os
import sys
import time
import traceback
from typing import Any


def warm_up_imports() -> None:
    """Imports everything that the commands use, and compiles the kernels."""
    import importlib
    import pkgutil

    import socodet
    from socodet.proposals.image_boxes import compile_kernels
    from socodet.views.rendering import warm_up

    for module in pkgutil.walk_packages(socodet.__path__, "socodet."):
        if "triton" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("timm", "tensorboard.summary.writer.event_file_writer", "faster_coco_eval", "matplotlib.figure"):
        importlib.import_module(name)
    warm_up()
    compile_kernels("fast")


def run(arguments: list[str], log: str, env: dict[str, str]) -> int:
    """Forks a command; returns its process id. Its output is appended to `log`."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for copy, to in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(copy, to)
        os.environ.update(env)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        from socodet.cli import main

        main(arguments)
        code = 0
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            code = ended.code or 0
        else:
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(process: int, seconds: float) -> int | None:
    """The exit status of a process if it ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def serve() -> None:
    """Answers requests until there are no more."""
    warm_up_imports()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        found = run(**asked["run"]) if "run" in asked else wait(asked["wait"], asked["seconds"])
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    serve()
