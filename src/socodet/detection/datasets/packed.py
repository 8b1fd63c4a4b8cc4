"""The annotations of many pictures as one block of bytes."""

import pickle
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Packed(Sequence[T], Generic[T]):
    """An immutable sequence, each item pickled into one block and made again whenever it is asked for.

    COCO's training set is a million and a half small arrays: handed to a worker one by one they take half a minute, and
    forked workers copy their memory page by page as they count references.
    """

    def __init__(self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._data, self._starts, self._ends = data, starts, ends

    @classmethod
    def of(cls, items: Iterable[T]) -> "Packed[T]":
        """Packs the items in their order."""
        parts = [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in items]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.concatenate([[0], ends[:-1]])[: len(ends)], ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> "Packed[T]": ...

    def __getitem__(self, index: int | slice) -> "T | Packed[T]":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        index = range(len(self))[index]  # counts from the end, and complains, as every sequence does
        item: Any = pickle.loads(self._data[self._starts[index] : self._ends[index]].data)
        return item  # type: ignore[no-any-return]

    def take(self, indices: Sequence[int]) -> "Packed[T]":
        """Some of them, without copying."""
        places = np.asarray(indices, np.int64)
        return Packed(self._data, self._starts[places], self._ends[places])
