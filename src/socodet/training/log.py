"""Where a training loop's log lines go: the run folder's JSONL file, TensorBoard, or any other `LogSink`."""

import io
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from socodet.runtime.files import GrowingFile, write_atomically
from socodet.runtime.notices import log_note
from socodet.training.run_folder import FULL, RunFolder

EVENTS = "events.out.tfevents"
BEGAN = re.compile(re.escape(EVENTS) + r"\.(\d{1,12}(\.\d{6})?)\.")
"""Finds the start time in the name of an event file; torch's SummaryWriter writes whole seconds."""


@runtime_checkable
class LogSink(Protocol):
    """Receives each log line; only the first process of a run has sinks."""

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Records the values of a line by name: numbers, lists of numbers or text. step: finished steps, from 1.

        A resumed run repeats the steps after its last checkpoint, so a step may come again. A step with an evaluation
        has two lines. After an OSError training continues, and the sink gets the next line.
        """

    def close(self) -> None:
        """Called once, when the loop ends for whatever reason."""


FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
"""How a run ended: as it should, by an error, or by a signal."""


class OutcomeSink:
    """Base of sinks that are told how the run ended before they are closed."""

    outcome = FINISHED


class JsonLinesSink:
    """Appends one JSON object per line to the run's log; lines after step `start`, left by a crash, are dropped."""

    def __init__(self, run: RunFolder, start: int) -> None:
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["step"] <= start]
        write_atomically(run.log, "".join(kept).encode())
        self._file = GrowingFile(run.log)

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Writes the line to disk at once, so that another program can follow the run."""
        self._file.append((json.dumps({"step": step, **line}) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The line's numbers by name, an item of a list as `name/index`; anything else is left out."""
    numbers: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, int | float):
            numbers[name] = value
        elif isinstance(value, list):
            numbers |= {f"{name}/{index}": item for index, item in enumerate(value) if isinstance(item, int | float)}
    return numbers


class TensorBoardSink:
    """Writes the numbers as scalars, a list as one scalar per item; hides those after step `start`.

    torch's SummaryWriter is not used: its thread dies with a traceback when the disk is full.
    """

    def __init__(self, run: RunFolder, start: int) -> None:
        run.tensorboard.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files by their names; a clock may have been set back since the last one.
        names = [BEGAN.match(file.name) for file in run.tensorboard.glob(f"{EVENTS}.*")]
        began = max([time.time(), *(float(name[1]) + 1 for name in names if name)])
        name = f"{EVENTS}.{began:.6f}.{platform.node()}.{os.getpid()}"
        self._file = GrowingFile(run.tensorboard / name)
        hidden = Event(step=start + 1, session_log=SessionLog(status=SessionLog.START))
        self._file.append(_records([Event(file_version="brain.Event:2"), hidden]))

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Adds the scalars; text is left out."""
        events = [
            Event(step=step, summary=scalar(name, value))  # type: ignore[no-untyped-call]
            for name, value in scalars_of(line).items()
        ]
        self._file.append(_records(events))

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()


def _records(events: Sequence[Event]) -> bytes:
    """Events as bytes of TensorBoard's file format, with the current time."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        event.wall_time = time.time()
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def folder_sinks(run: RunFolder, start: int) -> Iterator[LogSink]:
    """The sinks of every run: log.jsonl and TensorBoard events in its folder."""
    yield JsonLinesSink(run, start)
    yield TensorBoardSink(run, start)


class Sinks:
    """All sinks of a loop. A message says when one cannot write, as on a full disk, and when it can again.

    given: sinks that exist already; the loop's own, added one by one, get each line before them.
    """

    def __init__(self, given: Sequence[LogSink]) -> None:
        self._own: list[LogSink] = []
        self._given = given
        self._failing: set[int] = set()

    def add(self, sinks: Iterable[LogSink]) -> None:
        """Adds sinks as they are created; if creating one fails, `close` closes those before it."""
        for sink in sinks:
            self._own.append(sink)

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Gives every sink the line."""
        for number, sink in enumerate([*self._own, *self._given]):
            try:
                sink.write(step, line)
            except OSError as error:
                if number not in self._failing:
                    fix = "; free some disk space" if error.errno in FULL else ""
                    log_note(f"log lines cannot be written ({error}); training continues{fix}")
                self._failing.add(number)
            else:
                if number in self._failing:
                    log_note(f"log lines are written again, from step {step}")
                self._failing.discard(number)

    def close(self, outcome: str) -> None:
        """Closes every sink, even if one of the user's raises; `OutcomeSink` sinks are told how the run ended."""
        with ExitStack() as stack:
            for sink in reversed([*self._own, *self._given]):
                if isinstance(sink, OutcomeSink):
                    sink.outcome = outcome
                stack.callback(_closed, sink)


def _closed(sink: LogSink) -> None:
    try:
        sink.close()
    except OSError as error:
        log_note(f"the end of the log could not be written ({error})")
