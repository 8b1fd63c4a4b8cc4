"""The run's log: one JSON object a line, and the same as TensorBoard scalars."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from socodet.runtime.files import write_atomically
from socodet.training.run_folder import RunFolder


class RunLog:
    """Appends to a run's log from step `start` on; lines of later steps, left by a crash, are dropped first.

    Of several processes only the first has it `enabled`.
    """

    def __init__(self, run: RunFolder, start: int, *, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["step"] <= start]
        write_atomically(run.log, "".join(kept).encode())
        self._file = run.log.open("a")
        self._scalars = SummaryWriter(str(run.tensorboard), purge_step=start + 1)  # type: ignore[no-untyped-call]

    def write(self, line: Mapping[str, Any]) -> None:
        """One logged step; `line["step"]` counts finished steps, from 1."""
        if not self._enabled:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if isinstance(value, int | float):
                self._scalars.add_scalar(name, value, line["step"])  # type: ignore[no-untyped-call]
            elif isinstance(value, list):
                for index, part in enumerate(value):
                    self._scalars.add_scalar(f"{name}/{index}", part, line["step"])  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._enabled:
            return
        self._file.close()
        self._scalars.close()  # type: ignore[no-untyped-call]
