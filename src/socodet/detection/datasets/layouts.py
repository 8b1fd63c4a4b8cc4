"""Opens an annotated dataset in any of the known layouts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from socodet.detection.datasets import huggingface, yolo_description
from socodet.detection.datasets.annotation_files import find_dataset
from socodet.detection.datasets.annotations import DetectionDataset, Style
from socodet.detection.datasets.box_forms import BoxForm
from socodet.detection.datasets.classes import plain_name
from socodet.detection.datasets.coco import read_coco
from socodet.detection.datasets.coco_folder import begins_like_coco, coco_files
from socodet.detection.datasets.cvat_xml import USUAL as CVAT_FILE
from socodet.detection.datasets.cvat_xml import cvat_subsets, is_cvat, read_cvat
from socodet.detection.datasets.folder_listing import reuse_folder_listings
from socodet.detection.datasets.found_layout import Layout, check_no_box_form, check_no_images, split_or_whole
from socodet.detection.datasets.headers import without_broken_images
from socodet.detection.datasets.label_studio import is_label_studio, read_label_studio
from socodet.detection.datasets.labelme import LABELME, read_labelme_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.split_files import split_files
from socodet.detection.datasets.splits import SPELLINGS, WHOLE, image_folders, note_unread, split_name
from socodet.detection.datasets.subsets import hold_out
from socodet.detection.datasets.tables import is_table, read_table
from socodet.detection.datasets.unknown_layout import unknown_layout
from socodet.detection.datasets.via import USUAL, is_via, read_via
from socodet.detection.datasets.voc import read_voc
from socodet.detection.datasets.voc_files import XML, read_xml_set
from socodet.detection.datasets.voc_folder import LISTS, read_voc_folder, voc_classes, voc_splits
from socodet.detection.datasets.yolo import read_yolo
from socodet.errors import InputError
from socodet.images.dataset_split import is_dataset, splits_of
from socodet.images.reading import requested_reading
from socodet.images.source import ARCHIVES
from socodet.images.value_range import evenly_spaced, reading_of_dataset
from socodet.runtime.counted import counted
from socodet.runtime.notices import log_if_slow, notice

COCO, VOC, VOC_LIST = "COCO layout", "Pascal VOC layout", "a VOC list"
VIA, TABLES = "VIA's JSON files", "tables of boxes"
CVAT, LABEL_STUDIO = "CVAT's XML files", "Label Studio's JSON files"
KNOWN = (
    "give a folder in a known layout, a COCO or LVIS .json, a .csv of boxes, a data.yaml, an export of CVAT or Label "
    "Studio, or a list …/ImageSets/Main/NAME.txt; docs/data.md shows them"
)


@reuse_folder_listings()
def open_detection_set(
    path: str | Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    style: Style | None = None,
    reading: ReadingSettings | None = None,
    check_images: bool = False,
) -> DetectionDataset:
    """Opens the annotated dataset at `path`: a folder or a file in one of the layouts shown in docs/data.md.

    `split` is `train`, `val` or `test`, in any of the spellings of `SPELLINGS`; the name of a COCO file; a VOC list
    with its years, such as `trainval07+12`; or `all` for a dataset without splits. For VOC, `train` is trainval of all
    years and `val` is test of 2007; without an annotated test, they are train and val. `images` is the folder of the
    images, if they are not where the layout has them. `style` selects evaluation rules other than the format's own.
    With `reading.val_share`, `train` and `val` are shares of a dataset without a validation split. With `check_images`,
    the header of every image is read, and images that are broken or differ in size from their annotation are left out.

    InputError for a dataset that cannot be used, and MissingSplitError for a split that does not exist. Problems of
    single entries are in the dataset's `problems`.
    """
    given, reading = Path(path), reading or ReadingSettings()
    folder = Path(images) if images is not None else None
    layout = layout_at(given, images=folder, reading=reading, split=None if split == WHOLE else split)
    if split == WHOLE and reading.val_share is not None:
        raise InputError(
            f"{given}: --split {WHOLE} takes all images, and --val-share divides them; give one of the two"
        )
    split = next((known for known, names in SPELLINGS.items() if split in names and known in layout.splits), split)
    with log_if_slow(f"{given}: reading its annotations"):
        if reading.val_share is not None and split in ("train", "val"):
            dataset = _hold_out_split(given, layout, split, reading)
        elif layout.splits == (WHOLE,) and not given.is_dir():
            dataset = layout.read(WHOLE)
        elif split or layout.splits == (WHOLE,):
            dataset = layout.read(split or WHOLE)
        else:
            raise InputError(f"{given}: has the splits {', '.join(layout.splits)}; choose one with --split")
    names = Counter(category.name for category in dataset.categories)
    shared = [name for name, count in names.items() if count > 1]
    if shared:
        several = counted(len(shared), "name stands for several classes", "names stand for several classes each")
        notice(f"{dataset.name}: {several} (first: {shared[0]}), which are kept apart; if they are one, join them")
    first_of: dict[str, str] = {}
    alike = [(first, name) for name in names if (first := first_of.setdefault(plain_name(name), name)) != name]
    if alike:
        more = f" (and {len(alike) - 1:,} more pairs)" if len(alike) > 1 else ""
        one, other = alike[0]
        notice(f"{dataset.name}: {one!r} and {other!r}{more} are read as two classes; if they are one, call them alike")
    files, most = [dataset.images[k] for k in evenly_spaced(len(dataset))], requested_reading().reading.max_pixels
    pixel_reading = reading_of_dataset(
        [str(image.file) for image in files], lambda place: files[place].read(most), dataset.name
    )
    dataset = replace(dataset, style=style or dataset.style, pixel_reading=pixel_reading)
    return without_broken_images(dataset) if check_images else dataset


@reuse_folder_listings()
def has_split(path: str | Path, split: str, images: str | Path | None = None) -> bool:
    """Whether a dataset has this split."""
    layout = layout_at(Path(path), images=Path(images) if images is not None else None, split=split)
    return split in layout.splits


@reuse_folder_listings()
def layout_at(
    given: Path, *, images: Path | None = None, reading: ReadingSettings | None = None, split: str | None = None
) -> Layout:
    """The layout of a folder or file. InputError when it is in no known layout.

    If a folder has several, such as COCO's files beside YOLO's labels, the first one that has `split` is used.
    """
    form = (reading or ReadingSettings()).box_form
    suffix = given.suffix.lower()
    if given.is_dir():
        first: Layout | None = None
        with log_if_slow(f"{given}: looking for annotations in it"):
            for layout in _layouts(given, images, form, split):
                if split is None or split in layout.splits:
                    return layout
                first = first or layout
        if first is None and images is not None:
            raise InputError(
                f"{given}: holds no COCO file, and no label, XML or JSON file named after an image in {images}, which "
                "--images gives; give the folder of their images"
            )
        if first is None:
            raise unknown_layout(given)
        return first
    if suffix == ".json" and given.is_file() and is_via(given):
        return check_no_box_form(Layout("a VIA file", (WHOLE,), lambda _: read_via(given, images=images)), form)
    if suffix == ".json" and given.is_file() and is_label_studio(given):
        read = partial(read_label_studio, given, images=images)
        return check_no_box_form(Layout("a Label Studio file", (WHOLE,), lambda _: read()), form)
    if suffix == ".xml" and given.is_file() and is_cvat(given):
        root = given.parent if given.name.lower() == CVAT_FILE else given.with_suffix("")
        return check_no_box_form(_cvat(root, {WHOLE: given}, images), form)
    if suffix == ".json" and given.is_file():
        return Layout("a COCO file", (WHOLE,), lambda _: read_coco(given, images=images, form=form))
    if suffix == ".csv" and given.is_file():
        return Layout("a table of boxes", (WHOLE,), lambda _: read_table(given, images=images, form=form))
    if suffix == ".txt" and given.is_file() and given.absolute().parent.parts[-2:] == LISTS.parts:
        root = given.absolute().parents[2]
        name = f"{root.name} {given.stem}"
        layout = Layout(VOC_LIST, (WHOLE,), lambda _: read_voc([given], name, voc_classes(root, images), images))
        return check_no_box_form(layout, form)
    if suffix in yolo_description.DESCRIPTIONS and given.is_file():
        layout = check_no_box_form(_yolo(given, yolo_description.read_description(given)), form)
        return check_no_images(layout, given, images)
    if suffix in (".tar", *ARCHIVES) and given.is_file():
        raise InputError(f"{given}: is an archive; unpack it, and give the folder")
    raise InputError(f"{given}: {'not a detection dataset' if given.exists() else 'no such file or folder'}; {KNOWN}")


def _layouts(folder: Path, images: Path | None, form: BoxForm | None, split: str | None) -> Iterator[Layout]:
    """The layouts that a folder has, most certain first."""
    coco = coco_files(folder, split)
    if coco:
        yield _coco(folder, coco, images, form)
    if is_dataset(folder):
        yield check_no_images(_saved_dataset(folder, form), folder, images)
        return
    described = yolo_description.find_description(folder)
    if described:
        yield check_no_images(check_no_box_form(_yolo(folder, described), form), described.about, images)
    splits = voc_splits(folder)
    if splits:  # it may have lists with other names, too
        known = splits if split is None or split in SPELLINGS or WHOLE in (split, *splits) else (*splits, split)
        layout = Layout(VOC, known, lambda split: read_voc_folder(folder, split, images))
        yield check_no_box_form(layout, form)
        return
    if coco or described:
        return
    for places in image_folders((images or folder).absolute()):
        found = dict(_annotated(folder, places, images))
        if len(found) > 1:
            notice(f"{folder}: has {' and '.join(found)}; only {next(iter(found))} are read")
        if found:
            note_unread({split: place for split, place in places.items() if split != WHOLE})
            yield check_no_box_form(next(iter(found.values())), form)
            return
    yield from _one_file_a_split(folder, images, form)


def _one_file_a_split(folder: Path, images: Path | None, form: BoxForm | None) -> Iterator[Layout]:
    """The formats with one file per split, of any name: COCO, VIA, Label Studio, CVAT and tables."""
    coco = split_files(folder, ".json", begins_like_coco)
    if coco:
        yield _coco(folder, coco, images, form)
    via = split_files(folder, ".json", is_via, USUAL)
    if via:
        read = partial(read_via, siblings=list(via.values()), images=images)
        yield check_no_box_form(_of_files(folder, VIA, via, read), form)
    studio = split_files(folder, ".json", is_label_studio)
    if studio:
        read = partial(read_label_studio, siblings=list(studio.values()), images=images)
        yield check_no_box_form(_of_files(folder, LABEL_STUDIO, studio, read), form)
    cvat = split_files(folder, ".xml", is_cvat, CVAT_FILE)
    if cvat:
        yield check_no_box_form(_cvat(folder, cvat, images), form)
    tables = split_files(folder, ".csv", is_table)
    if tables:
        read = partial(read_table, siblings=list(tables.values()), images=images, form=form)
        yield _of_files(folder, TABLES, tables, read)


def _annotated(folder: Path, places: Mapping[str, Path], images: Path | None) -> Iterator[tuple[str, Layout]]:
    """The formats with one file per image that are in these places: name and layout, most certain first."""
    for name, one, read in (("XML files", XML, read_xml_set), ("LabelMe's JSON files", LABELME, read_labelme_set)):
        files = find_dataset(folder, one, places, images)
        if files:
            splits, reader = tuple(files.splits), partial(read, files)
            yield name, Layout(f"images with {name}", splits, split_or_whole(folder, splits, reader))
    yolo = yolo_description.find_dataset(folder, places, images)
    if yolo:
        yield "YOLO's labels", _yolo(folder, yolo)


def _hold_out_split(given: Path, layout: Layout, split: str, reading: ReadingSettings) -> DetectionDataset:
    """The training or validation images of a dataset without a validation split."""
    assert reading.val_share is not None
    if "val" in layout.splits:
        raise InputError(f"{given}: has a validation split of its own; leave out --val-share")
    whole = layout.read("train" if "train" in layout.splits else WHOLE)
    train, val = (whole, None) if reading.val_share == 0 else hold_out(whole, reading.val_share, reading.val_seed)
    if split == "train":
        return train
    if val is None:
        raise InputError(f"{given}: --val-share 0 holds out no image to score on; choose a larger share")
    return val


def _coco(folder: Path, files: Mapping[str, Path], images: Path | None, form: BoxForm | None) -> Layout:
    return _of_files(folder, COCO, files, partial(read_coco, images=images, form=form))


def _cvat(root: Path, files: Mapping[str, Path], images: Path | None) -> Layout:
    """The file of each split, or the subsets of a single file."""
    subsets = cvat_subsets(files[WHOLE]) if WHOLE in files else {}
    if not subsets:
        return _of_files(root, CVAT, files, partial(read_cvat, siblings=list(files.values()), images=images))

    def read(split: str) -> DetectionDataset:
        return read_cvat(files[WHOLE], subset=subsets[split], images=images, name=split_name(root, split))

    return Layout(CVAT, tuple(subsets), split_or_whole(files[WHOLE], tuple(subsets), read))


def _of_files(folder: Path, name: str, files: Mapping[str, Path], read: Callable[..., DetectionDataset]) -> Layout:
    def read_split(split: str) -> DetectionDataset:
        return read(files[split], name=split_name(folder, split))

    return Layout(name, tuple(files), split_or_whole(folder, tuple(files), read_split))


def _saved_dataset(folder: Path, form: BoxForm | None) -> Layout:
    splits = splits_of(folder)
    if not splits:
        reader = split_or_whole(folder, (WHOLE,), lambda _: huggingface.read_saved_split(folder, (), form))
        return Layout("a Hugging Face dataset", (WHOLE,), reader)
    lower = {name.lower(): place for name, place in splits.items()}
    named = {split: next((lower[name] for name in names if name in lower), None) for split, names in SPELLINGS.items()}
    there = {split: place for split, place in named.items() if place}
    there |= {name: place for name, place in splits.items() if place not in there.values()}
    siblings = list(splits.values())

    def read(split: str) -> DetectionDataset:
        dataset = huggingface.read_saved_split(there[split], siblings, form)
        return replace(dataset, name=split_name(folder, split))

    return Layout("a Hugging Face dataset", tuple(there), split_or_whole(folder, tuple(there), read))


def _yolo(given: Path, described: yolo_description.YoloDataset) -> Layout:
    reader = split_or_whole(given, tuple(described.splits), lambda split: read_yolo(described, split))

    def read(split: str) -> DetectionDataset:
        described.check(split)
        return reader(split)

    splits = tuple(split for split in described.splits if split not in described.absent)
    absent = tuple(map(described.missing_split_message, described.absent))
    if not splits:
        raise InputError(absent[0])
    return Layout("YOLO layout", splits, read, absent)
