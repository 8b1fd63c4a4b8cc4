"""A million names without a million Python strings."""

from collections.abc import Iterable, Sequence
from typing import Any, overload

import pyarrow as pa

from socodet.errors import InputError


class Names(Sequence[str]):
    """An immutable sequence of strings, held in one Arrow array.

    A tuple of a million strings is pickled string by string, and a forked worker copies its memory page by page, as
    it counts references. An Arrow array is two blocks of bytes.

    InputError for a name that is not UTF-8.
    """

    def __init__(self, names: Iterable[str]) -> None:
        try:
            self._names = pa.array(names, pa.large_string())
        except UnicodeEncodeError as error:
            raise InputError(f"{error.object!a}: the name of this image is not UTF-8; rename it") from None

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        found: Any = self._names[index]
        return found.to_pylist() if isinstance(index, slice) else found.as_py()  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._names.equals(other._names)
