"""Reads CVAT's XML of a video, "CVAT for video 1.1", in which tracks hold the shapes of all frames.

The files do not name the frames, but CVAT exports those of a video as `frame_000012.PNG`, by their number in it.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.values import flag, number
from socodet.errors import InputError
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.notices import notice

OF_VIDEOS = ".PNG"
"""The suffix of a video's frames, which their names in the format for images lack."""
VIDEO = "video"
"""The root's tag in the form that `by_frame` gives it."""
FRAME = "frame_{:06d}"
NUMBERED = re.compile(r"frame_(\d{6,})")
MOST = 10**6
"""Maximum number of frames, nine hours of a video."""
FIX = "export the task as 'CVAT for images 1.1', which names them, or as 'COCO 1.0'"


def by_frame(root: ElementTree.Element, file: Path) -> ElementTree.Element:
    """The same annotations as in the format for images: an element `image` for each frame.

    Frames that a track skips are left out: the file was not interpolated there, or they were deleted in CVAT. So are
    those after a last visible shape, as CVAT's tracks go on to the end or until the object is outside.
    InputError unless the file is of a single video, whose frames it numbers.
    """
    numbers = _frames(root)
    if not numbers or root.find("image") is not None:
        raise InputError(
            f"{file}: is of the format 'CVAT for video', which does not name the images, and not of one video with "
            f"known frames; {FIX}"
        )
    size = {side: root.findtext(f"meta//original_size/{side}", "") for side in ("width", "height")}
    images = {one: ElementTree.Element("image", {"name": FRAME.format(one), **size}) for one in numbers}
    skipped: set[int] = set()
    for track in root.iter("track"):
        of_track = {name: value for name, value in track.items() if name in ("label", "group_id")}
        skipped |= _place(track, of_track, images, numbers, file)
    if skipped:
        notice(f"{file}: {len(skipped):,} frames are left out, as tracks with a shape before have none there")
    found = ElementTree.Element(VIDEO, {"first": str(numbers[0]), "last": str(numbers[-1])})
    found.extend(root.findall("meta"))
    found.extend(image for one, image in images.items() if one not in skipped)
    return found


def check_frames(root: ElementTree.Element, file: Path, data: DetectionDataset) -> None:
    """InputError if frames of a video have shapes and no image, or if images are numbered otherwise than in CVAT.

    root: from `by_frame`. Tools that extract frames count from 1, and only the frames that they extract.
    """
    there = {image.file.stem for image in data.images}
    for image in root.iter("image"):
        if len(image) and image.get("name") not in there:
            raise InputError(
                f"{file}: {image.get('name')}{OF_VIDEOS} has shapes and is missing; export the task with its images"
            )
    first, last = (int(root.get(which, "0")) for which in ("first", "last"))
    for folder in {image.file.parent for image in data.images}:
        for path in map(Path, folder_listings().names(folder)):
            found = NUMBERED.fullmatch(path.stem) if path.suffix.lower() in SUFFIXES else None
            if found is not None and not first <= int(found[1]) <= last:
                raise InputError(
                    f"{folder / path}: is none of the frames {first} to {last} of {file}, so images may be numbered "
                    "otherwise than in CVAT; export the task with its images"
                )


def _frames(root: ElementTree.Element) -> range:
    """Numbers of the frames of a task or job with a video; empty if they are not known, or for a project."""
    place = next((one for kind in ("task", "job") if (one := root.find(f"meta/{kind}")) is not None), None)
    if place is None or root.find("meta//original_size") is None:
        return range(0)
    start, stop = (number(place.findtext(f"{which}_frame")) for which in ("start", "stop"))
    step = re.fullmatch(r"\s*(?:step\s*=\s*([1-9]\d{0,5}))?\s*", place.findtext("frame_filter", ""))
    if step is None or not (start.is_integer() and stop.is_integer() and 0 <= start <= stop):
        return range(0)
    found = range(int(start), int(stop) + 1, int(step[1] or 1))
    return found if len(found) <= MOST else range(0)


def _place(
    track: ElementTree.Element,
    of_track: Mapping[str, str],
    images: Mapping[int, ElementTree.Element],
    numbers: range,
    file: Path,
) -> set[int]:
    """Adds a track's visible shapes to its frames; returns the frames without a shape after a visible one."""
    shapes: dict[int, ElementTree.Element] = {}
    for shape in (one for one in track if one.get("frame") is not None):
        at = number(shape.get("frame"))
        if not (at.is_integer() and (at in numbers or at > numbers[-1])):  # CVAT may write one frame too many
            what = f"frame {shape.get('frame')!r:.40} of track {track.get('id')}"
            raise InputError(f"{file}: {what} is none of the video's frames; {FIX}")
        shapes[int(at)] = shape
    skipped: set[int] = set()
    visible: int | None = None
    for at, shape in sorted(shapes.items(), key=lambda one: one[0]):
        if visible is not None:
            skipped.update(range(visible + numbers.step, min(at, numbers.stop), numbers.step))
        visible = None if flag(shape.get("outside")) else at
        if visible is not None and at in images:
            shape.attrib.update(of_track)
            images[at].append(shape)
    if visible is not None and visible < numbers[-1] - numbers.step:  # CVAT does not end a shape just before the last
        skipped.update(range(visible + numbers.step, numbers.stop, numbers.step))
    return skipped
