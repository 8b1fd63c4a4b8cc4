"""JPEGs whose end is missing, as after an interrupted copy or download: read as far as they go, and counted."""

import multiprocessing

from socodet.runtime.counted import counted
from socodet.runtime.notices import log_note, notice

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its last scan. Neither marker can occur within compressed pixels."""
    return data.rfind(END_OF_IMAGE) < data.rfind(START_OF_SCAN)


class TruncatedImages:
    """Counts the images that were cut short, each once however often it is read."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add(self, name: str) -> None:
        """Counts one image. A data worker cannot tell its parent, so it prints a note about its first one itself."""
        if multiprocessing.parent_process() is None:
            self.names.add(name)
        elif not self.names:
            self.names.add(name)
            notice(f"{name}: a truncated JPEG, perhaps one of several; read as far as it goes")

    def report(self) -> None:
        """Prints how many were counted since the last call."""
        if self.names:
            first = min(self.names)
            what = counted(len(self.names), "truncated JPEG")
            log_note(f"{what}: read as far as the data goes, grey below it (first: {first})")
            self.names.clear()


TRUNCATED = TruncatedImages()
"""The truncated images that this process has read."""
