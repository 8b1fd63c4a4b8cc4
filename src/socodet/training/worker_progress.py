"""What a data worker is doing, so that its parent can say so if it hangs."""

import mmap
from typing import Any


class WorkerProgress:
    """A worker's progress in memory shared with its parent: how many images it has begun, and the last one's name."""

    SIZE = 1024

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = mmap.mmap(-1, self.SIZE)

    def __reduce__(self) -> Any:  # for a process that is not forked: its progress is then unknown
        return WorkerProgress, ()

    def begin(self, name: str) -> None:
        """Notes one more image."""
        if self._memory is not None:
            text = name.encode(errors="replace")[: self.SIZE - 16]
            count = int.from_bytes(self._memory[:8], "little") + 1
            self._memory[:16] = count.to_bytes(8, "little") + len(text).to_bytes(8, "little")
            self._memory[16 : 16 + len(text)] = text

    def read(self) -> tuple[int, str]:
        """The count and the last name."""
        assert self._memory is not None
        count, length = (int.from_bytes(self._memory[k : k + 8], "little") for k in (0, 8))
        return count, self._memory[16 : 16 + length].decode(errors="replace")
