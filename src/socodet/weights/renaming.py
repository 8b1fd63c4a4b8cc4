"""Maps tensor names between two naming schemes, written once for both directions.

A line is a pair of templates, such as

    ("neck.lateral_convs.{level-2}.conv.{rest}", "lateral.{level}.conv.{rest}")

`{rest}` is whatever follows; every other field is a number, which a template may shift: here block 0 is P2's.
"""

import re

Line = tuple[str, str]
"""Templates of a name in some format and of the plain name of the same tensor."""

_FIELD = re.compile(r"\{(\w+?)([+-]\d+)?\}")


class Renaming:
    """The lines of a format. The first line that matches a name is used."""

    def __init__(self, *lines: Line) -> None:
        self._lines = [(_Template(theirs), _Template(plain)) for theirs, plain in lines]

    def to_plain(self, name: str) -> str | None:
        """The plain name of a tensor in this format; None if it has none."""
        return next((new for theirs, plain in self._lines if (new := theirs.rewrite(name, plain))), None)

    def from_plain(self, name: str) -> str | None:
        """The name in this format of the tensor with this plain name; None if the format has no place for it."""
        return next((new for theirs, plain in self._lines if (new := plain.rewrite(name, theirs))), None)


class _Template:
    def __init__(self, text: str) -> None:
        self._texts = _FIELD.split(text)[::3]
        self._fields = [(name, int(shift or 0)) for name, shift in _FIELD.findall(text)]
        groups = [r"(.+)" if name == "rest" else r"(\d+)" for name, _ in self._fields]
        pairs = zip(map(re.escape, self._texts), [*groups, ""], strict=True)
        self._pattern = re.compile("".join(text + group for text, group in pairs))

    def rewrite(self, name: str, other: "_Template") -> str | None:
        """Puts a name's fields into the other template; None if the name does not match or a number is negative."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        numbers = {
            field: value if field == "rest" else int(value) - shift
            for (field, shift), value in zip(self._fields, match.groups(), strict=True)
        }
        return other._fill(numbers)

    def _fill(self, values: dict[str, str | int]) -> str | None:
        filled = [self._texts[0]]
        for (field, shift), text in zip(self._fields, self._texts[1:], strict=True):
            value = values[field]
            if isinstance(value, int):
                value += shift
                if value < 0:
                    return None
            filled += [str(value), text]
        return "".join(filled)
