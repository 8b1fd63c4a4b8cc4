"""Where a training loop's log lines go: the run folder's JSONL file, TensorBoard, or any other `LogSink`."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from socodet.runtime.files import write_atomically
from socodet.training.run_folder import RunFolder


class LogSink(Protocol):
    """Receives each log line; only the first process of a run has sinks."""

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Records the values of a line by name: numbers, lists of numbers or text. step: finished steps, from 1.

        A resumed run repeats the steps after its last checkpoint, so a step may come again. A step with an evaluation
        has two lines.
        """

    def close(self) -> None:
        """Called once, when the loop ends for whatever reason."""


class JsonLinesSink:
    """Appends one JSON object per line to the run's log; lines after step `start`, left by a crash, are dropped."""

    def __init__(self, run: RunFolder, start: int) -> None:
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["step"] <= start]
        write_atomically(run.log, "".join(kept).encode())
        self._file = run.log.open("a")

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Writes the line to disk at once, so that another program can follow the run."""
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardSink:
    """Writes the numbers as scalars, a list as one scalar per item; hides those after step `start`."""

    def __init__(self, run: RunFolder, start: int) -> None:
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=start + 1)  # type: ignore[no-untyped-call]

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Adds the scalars; text is left out."""
        for name, value in line.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    self._writer.add_scalar(f"{name}/{index}", item, step)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()  # type: ignore[no-untyped-call]


def folder_sinks(run: RunFolder, start: int) -> list[LogSink]:
    """The sinks of every run: log.jsonl and TensorBoard events in its folder."""
    return [JsonLinesSink(run, start), TensorBoardSink(run, start)]
