"""Runs commands with a fault at a chosen moment, and checks what they leave behind."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
from PIL import Image

from socodet.training.checkpoint_file import read_state

HERE = Path(__file__).parent
LONGEST = 120.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status (negative for a signal), output, duration, and number of writes."""

    status: int
    said: str
    seconds: float
    writes: int


@dataclass(frozen=True)
class Running:
    """A running command."""

    process: int
    arguments: list[str]
    log: Path
    began: float


class Starter:
    """Starts commands, counts their writes below `folder`, and can make a write fail."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._counter = folder, folder.parent / "counter"
        library = folder.parent / "writes.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "writes.c", "-ldl"], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._counter.write_bytes(bytes(8))
        env = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        for name in [name for name in env if name.startswith("PYTEST_")]:
            del env[name]
        self._process = subprocess.Popen(
            [sys.executable, HERE / "started.py"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answer()

    def run(self, arguments: list[str], *, at: int = 0, how: str = "", kill_after: float | None = None) -> Ended:
        """Runs a command to its end, with a fault at write number `at`, or killed after `kill_after` seconds."""
        self._counter.write_bytes(bytes(8))
        fault = {"FAULT_COUNTER": str(self._counter), "FAULT_AT": str(at), "FAULT_HOW": how}
        running = self.start(arguments, fault)
        status = None if kill_after is None else self.status(running, kill_after)
        if status is None and kill_after is not None:
            os.kill(running.process, signal.SIGKILL)
        return self.end(running, status)

    def start(self, arguments: list[str], env: Mapping[str, str], name: str = "log") -> Running:
        """Starts a command; its output goes to the log file called `name`."""
        log = self.folder.parent / f"{name}.txt"
        log.unlink(missing_ok=True)
        env = {"FAULT_FOLDER": str(self.folder), **env}
        process = self._ask(run={"arguments": arguments, "log": str(log), "env": env})
        return Running(process, arguments, log, time.monotonic())

    def status(self, running: Running, seconds: float) -> int | None:
        """A command's exit status, if it ends within that time."""
        found: int | None = self._ask(wait=running.process, seconds=seconds)
        return found

    def end(self, running: Running, status: int | None = None) -> Ended:
        """Waits until a command and its children have ended; AssertionError if they hang."""
        if status is None:
            status = self.status(running, LONGEST)
        seconds = time.monotonic() - running.began
        said = running.log.read_text(errors="replace") if running.log.exists() else ""
        if status is None:
            os.killpg(running.process, signal.SIGKILL)
            raise AssertionError(f"hangs: {' '.join(running.arguments)}\n{said}")
        self._until_children_are_gone(running.process)
        return Ended(status, said, seconds, int.from_bytes(self._counter.read_bytes(), sys.byteorder))

    def close(self) -> None:
        """Stops the process from which commands are forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _until_children_are_gone(self, group: int) -> None:
        """Waits for data workers, which exit once their parent is gone."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)
        os.killpg(group, signal.SIGKILL)
        raise AssertionError("processes are left behind")


def assert_whole(folder: Path) -> None:
    """Asserts that every file is complete, except those whose names begin with a dot, which may be unfinished."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            for line in lines[:-1]:
                json.loads(line)
        elif path.suffix == ".parquet":
            pyarrow.parquet.read_table(path)
        elif path.suffix == ".pt":
            read_state(path)
        elif path.suffix == ".csv":
            rows = list(csv.reader(path.read_text().splitlines()))
            assert len({len(row) for row in rows}) <= 1, path
        elif path.suffix in (".jpg", ".png"):
            Image.open(path).load()


def empty(folder: Path) -> None:
    """Removes everything in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def moments(seed: str, count: int, end: float) -> list[float]:
    """`count` random times before `end`, depending on the seed."""
    generator = random.Random(seed)
    return sorted(generator.uniform(0, end) for _ in range(count))


def picked(seed: str, count: int, end: int) -> list[int]:
    """`count` distinct integers from 1 to `end`, or all of them if there are fewer."""
    numbers = range(1, end + 1)
    return [*numbers] if count >= end else sorted(random.Random(seed).sample(numbers, count))


def without_times(value: Any) -> Any:
    """A JSON value without timings, which differ between runs: seconds and rates."""
    timed = ("second", "minute", "wait", "time", "date", "images_per", "worker_cores")
    if isinstance(value, Mapping):
        return {key: without_times(one) for key, one in value.items() if not any(part in key for part in timed)}
    return [without_times(one) for one in value] if isinstance(value, list) else value
