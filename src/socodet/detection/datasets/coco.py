"""Reads annotations in COCO's form, one JSON file, and LVIS's, which adds what is not annotated in an image."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from socodet.detection.datasets.annotations import Category, DetectionDataset, Frequency, Style
from socodet.detection.datasets.box_forms import FORMS, BoxForm, check_box_form
from socodet.detection.datasets.coco_folder import name_from_location
from socodet.detection.datasets.cvat import correct_cvat_masks
from socodet.detection.datasets.entries import (
    Entry,
    FoundImage,
    ListedImage,
    dataset_from_entries,
    in_pixels,
    labels_of,
    note_shifted_labels,
    note_voc_scoring,
    objects_by_image,
)
from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.same_file import merge_repeated_images
from socodet.detection.datasets.values import as_id, matching_id, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.file_header import image_file_size
from socodet.images.lists import locate_images, spelled_as_in
from socodet.images.reach import points_outside
from socodet.runtime.collector import collector_paused
from socodet.runtime.files import parse_json, read_user_file


@dataclass(frozen=True)
class Content:
    """What a COCO file holds, or a file of another format with one file per dataset."""

    lists: Mapping[str, list[Any]]
    """`images`, `annotations` and `categories`."""
    form: BoxForm = "xywh"
    """The usual form of its boxes."""
    fix: str = ""
    """What to do if they are in another form; by default, to choose that one with --box-form."""
    sized: bool = True
    """Whether it should say how large the images are."""
    annotated: frozenset[int | str] = frozenset()
    """Ids of images that have annotations besides those in `lists`."""
    complete: Callable[[Entry, ListedImage], Entry] = lambda entry, _: entry
    """Completes an annotation when the size of its image is known."""
    problems: AnnotationProblems = field(default_factory=AnnotationProblems)


@collector_paused()
def read_coco(
    file: Path, *, images: Path | None = None, form: BoxForm | None = None, name: str | None = None
) -> DetectionDataset:
    """The images of a COCO or LVIS file with their objects, in the file's order.

    `images` is the folder that file names are relative to; by default the one that `images.lists.locate_images` finds.
    LVIS v1 names an image by the last two parts of its `coco_url`, `train2017/000000000009.jpg`.

    The style is LVIS's if images have `neg_category_ids`, VOC's if objects say whether they are `difficult`, otherwise
    COCO's. `form`: the meaning of a `bbox`'s four numbers, by default COCO's; `name` defaults to `name_from_location`.

    InputError if the file is not a COCO file, if none of its images or hardly any of its annotations can be used, or if
    its boxes are in another form. The dataset's `problems` list what is wrong with single entries.
    """
    return read_content(file, Content(_content(file)), images=images, form=form, name=name)


def read_content(
    file: Path, content: Content, *, images: Path | None = None, form: BoxForm | None = None, name: str | None = None
) -> DetectionDataset:
    """As `read_coco`, for content that may be from a file of another format."""
    lists, problems = content.lists, content.problems
    categories = _without_placeholders(lists, _categories(file, lists["categories"]), problems)
    listed = _usable_images(lists["images"], problems)
    if not listed:
        raise InputError(
            f"{file}: lists no usable image; each needs an `id` of its own and a `file_name`"
            + "".join(f"; {line}" for line in problems.lines())
        )
    ids = {image.image_id for image in listed}
    annotations = correct_cvat_masks(lists["annotations"], problems)
    objects = objects_by_image(annotations, ids, labels_of(categories), problems)
    used = (number(one.get("category_id")) for one in lists["annotations"] if isinstance(one, dict))
    note_shifted_labels(file, categories, {int(one) for one in used if one.is_integer()})
    if annotations and not objects:
        raise InputError(f"{file}: none of its annotations can be used: {'; '.join(problems.lines())}")
    written = (matching_id(one.get("image_id"), ids) for one in annotations if isinstance(one, dict))
    annotated = content.annotated.union(one for one in written if one is not None)
    entries = (
        FoundImage(
            path,
            image,
            [(content.complete(entry, image), label) for entry, label in objects.get(image.image_id, [])],
            annotated=image.image_id in annotated,
        )
        for path, image in _present(file, images, listed, content)
    )
    found = merge_repeated_images(entries, problems)
    usual = form or content.form
    fix = f"say so with --box-form, or convert them to {FORMS[usual]}; --box-form {usual} reads them as they are"
    fix = content.fix or fix
    if form is not None:
        fix = f"leave out --box-form {form}; if two datasets have different forms, convert one (socodet convert)"
    check_box_form(file, usual, [image.written_boxes for image in found], fix, asked=form is not None)
    style = _style(file, lists, problems)
    name = name or name_from_location(file)
    return dataset_from_entries(name, categories, in_pixels(found, usual), style, usual, problems, file)


def _content(file: Path) -> dict[str, list[Any]]:
    content = parse_json(file, read_user_file(file), "give a COCO file")
    if isinstance(content, dict) and isinstance(content.get("shapes"), list):
        raise InputError(f"{file}: is a LabelMe file, which annotates a single image; give the folder of these files")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{file}: is not a COCO file of annotations; it has no list `{key}`")
    return cast(dict[str, list[Any]], content)


def _categories(file: Path, entries: list[Any]) -> tuple[Category, ...]:
    """The categories sorted by id, so that two files of a dataset agree whatever their order."""
    found = list(dict.fromkeys(_category(file, entry) for entry in entries))  # merged files may repeat an entry
    ids = [category.id for category in found]
    if not found or len(set(ids)) < len(ids):
        what = f"has the category id {next(i for i in ids if ids.count(i) > 1)} twice" if ids else "has no category"
        raise InputError(f"{file}: {what}; give each class its own id")
    return tuple(sorted(found, key=lambda category: category.id))


def _category(file: Path, entry: Any) -> Category:
    written = entry if isinstance(entry, dict) else {}
    category_id, name, frequency = number(written.get("id")), written.get("name"), written.get("frequency")
    if not category_id.is_integer() or not isinstance(name, str | int | float) or name == "":
        raise InputError(f"{file}: a category is unusable ({entry!r:.80}); each needs a whole number `id` and a `name`")
    return Category(int(category_id), str(name), cast(Frequency, frequency) if frequency in ("r", "c", "f") else None)


def _without_placeholders(
    content: Mapping[str, list[Any]], categories: tuple[Category, ...], problems: AnnotationProblems
) -> tuple[Category, ...]:
    """Leaves out entries that are not classes and that no object has.

    Roboflow's exports list the classes' common `supercategory` first, and LabelMe's converter `_background_`.
    """
    groups = {int(number(one["id"])): str(one.get("supercategory") or "") for one in content["categories"]}
    used = {matching_id(one.get("category_id"), groups) for one in content["annotations"] if isinstance(one, dict)}

    count = Counter(groups.values())

    def is_placeholder(category: Category) -> bool:
        others = len(groups) - 1
        of_it = count[category.name] - (groups[category.id] == category.name)
        return category.id not in used and (category.name == "_background_" or of_it == others > 0)

    kept = tuple(category for category in categories if not is_placeholder(category))
    if not kept:
        return categories
    for category in set(categories) - set(kept):
        problems.add(Problem.PLACEHOLDER_CATEGORY, f"category {category.id}, {category.name}")
    return kept


def _usable_images(entries: list[Any], problems: AnnotationProblems) -> list[ListedImage]:
    usable: dict[int | str, ListedImage] = {}
    several: set[int | str] = set()
    for place, entry in enumerate(entries):
        image_id = as_id(entry.get("id")) if isinstance(entry, dict) else None
        name = _file_name(entry) if image_id is not None else ""
        if image_id is None or not name:
            problems.add(Problem.BROKEN_IMAGE_ENTRY, f"entry {place} of `images`")
        elif image_id in usable and _same_name(name, usable[image_id].name):
            problems.add(Problem.REPEATED_IMAGE, f"image id {image_id}")
        elif image_id in usable:
            several.add(image_id)
            problems.add(Problem.ONE_ID, f"image id {image_id}, {usable[image_id].name} and {name}")
        else:
            sides = pixel_count(entry.get("height")), pixel_count(entry.get("width"))
            usable[image_id] = ListedImage(image_id, name, *sides, entry)
            if any(isinstance(entry.get(side), str) for side in ("height", "width")):
                problems.add(Problem.NUMBER_AS_TEXT, f"size of image {image_id}")
    return [image for image_id, image in usable.items() if image_id not in several]


def _same_name(one: str, other: str) -> bool:
    return one == other or posixpath.normpath(one.replace("\\", "/")) == posixpath.normpath(other.replace("\\", "/"))


def _file_name(entry: Entry) -> str:
    """The file name relative to the images' folder; empty if the entry has none."""
    name = entry.get("file_name") or "/".join(str(entry.get("coco_url") or "").split("/")[-2:])
    return name if isinstance(name, str) else ""


def _present(
    file: Path, images: Path | None, listed: Sequence[ListedImage], content: Content
) -> Iterator[tuple[Path, ListedImage]]:
    """The images whose files exist, each with its size."""
    problems = content.problems
    names = [image.name for image in listed]
    root, paths = (
        locate_images(file, names, show_note=False) if images is None else (images, spelled_as_in(images, names))
    )
    moved = [(name, path) for name, path in zip(names, paths, strict=True) if posixpath.normpath(name) != path]
    if moved:
        problems.add(Problem.NAME_FROM_ELSEWHERE, " is ".join(moved[0]), len(moved))
    root = root.resolve()
    listings = folder_listings()
    found = False
    for image, name in zip(listed, paths, strict=True):
        if points_outside(name, file, root):
            problems.add(Problem.NAME_ASTRAY, f"image {image.image_id}, {image.name}")
            continue
        path = listings.spelled(root, name)
        if path is None:
            problems.add(Problem.MISSING_IMAGE, str(root / name))
            continue
        if path != root / name:
            problems.add(Problem.OTHER_SUFFIX, f"{image.name} is {path.name}")
        found = True
        if image.height and image.width:
            yield path, image
            continue
        try:
            width, height = image_file_size(path)
        except (OSError, UnreadableImageError) as error:
            problems.add(Problem.BROKEN_IMAGE, f"{path}: {error}")
            continue
        if content.sized:
            problems.add(Problem.SIZE_FROM_FILE, f"image {image.image_id}, {path.name}")
        yield path, replace(image, height=height, width=width)
    if not found:
        astray = f" ({problems.line(Problem.NAME_ASTRAY)})" if Problem.NAME_ASTRAY in problems.counts else ""
        raise InputError(f"{file}: none of its {len(listed)} images is in {root}{astray}; name their folder")


def _style(file: Path, content: Mapping[str, list[Any]], problems: AnnotationProblems) -> Style:
    fields = {
        "neg_category_ids": content["images"],
        "not_exhaustive_category_ids": content["images"],
        "frequency": content["categories"],
    }
    there = {name: any(isinstance(entry, dict) and name in entry for entry in fields[name]) for name in fields}
    lvis = there["neg_category_ids"]
    if any(there.values()) and not all(there.values()):
        missing = ", ".join(name for name in there if not there[name])
        problems.add(Problem.PARTLY_LVIS, f"without {missing}, scored by {'LVIS' if lvis else 'COCO'}'s rules")
    if lvis:
        for entry in content["categories"]:
            if there["frequency"] and entry.get("frequency") not in get_args(Frequency):
                problems.add(Problem.BROKEN_FREQUENCY, f"category {entry['name']}")
        return "lvis"
    if any(isinstance(entry, dict) and "difficult" in entry for entry in content["annotations"]):
        note_voc_scoring(file)
        return "voc"
    return "coco"
