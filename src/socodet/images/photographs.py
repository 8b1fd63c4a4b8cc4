"""A dozen freely licensed photographs that come with the package, to try everything on."""

from pathlib import Path


def photographs() -> Path:
    """The folder they are in, as JPEG of at most 400 pixels a side; ATTRIBUTION.md there names the authors.

    Nine are in colour and three are grayscale.
    """
    return Path(__file__).parent / "photographs"


def objects_of_photographs() -> Path:
    """A COCO file beside them, with boxes drawn by hand on six of them, of animals, persons and rockets."""
    return photographs() / "objects.json"
