"""How results look in a notebook."""

import html


class Shown:
    """A result whose `str` is a text for people; a notebook shows it as it stands, in columns."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
