"""A million names without a million Python strings."""

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError


class Names(Sequence[str]):
    """An immutable sequence of strings in two arrays.

    A tuple of a million strings is pickled string by string, and forked workers copy its memory page by page
    as they count references; this is two blocks of bytes.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Stores the names in their order. InputError for a file name that is not UTF-8, as no table could hold it."""
        encoded = []
        for name in names:
            try:
                encoded.append(name.encode())
            except UnicodeEncodeError:
                raise InputError(f"{name!a}: the name of this image is not UTF-8; rename it") from None
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "Names": ...

    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return Names.of(self[i] for i in range(len(self))[index])
        index = range(len(self))[index]  # counts from the end, and complains, as every sequence does
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].tobytes().decode()

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, Names)
            and np.array_equal(self._ends, other._ends)
            and np.array_equal(self._text, other._text)
        )

    def __hash__(self) -> int:
        return hash((len(self), self._text.tobytes()))
