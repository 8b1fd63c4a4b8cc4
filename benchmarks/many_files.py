"""What a folder of a million images costs before a run begins: listing, reading headers, and table look-ups.

python benchmarks/many_files.py [--files 1000000] [--flat] [--phases list headers] [--folder /tmp]

Makes a folder of that many hard links to small JPEGs, a thousand per subfolder or, with --flat, all in one, and a
proposal table of them; removes them at the end. Each phase runs in its own process and is measured in seconds, CPU
seconds, and MiB of peak memory above that after the imports. Prints one JSON object.

list: `open_images`. digest: the hash of all names for run.json. headers: `image_file_size` of each, as when checking an
annotated dataset. table: reads the table, compares it with the images, and looks up one in a hundred. propose: what
`propose` does before its first image. order: the first batch of a run. together: all but headers, as in `pretrain`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from machine import machine
from socodet.images.file_header import image_file_size
from socodet.images.source import ImageSource, digest_names, open_images
from socodet.pretraining.preparation import _check_table, readable_images
from socodet.proposals.part_files import Job
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable, table_schema
from socodet.training.streams import Stream

LINKS = 30_000
"""Hard links per file; file systems allow about 65,000."""


def make(folder: Path, count: int, *, flat: bool) -> None:
    """Makes the images, and a table of them with 8 boxes each."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    images = folder / "images"
    for number in range(count):
        place = images if flat else images / f"{number // 1000:06d}"
        if number % 1000 == 0:
            place.mkdir(parents=True, exist_ok=True)
        if number % LINKS == 0:
            first = folder / f"first{number}.jpg"
            Image.fromarray(pixels).save(first)
        os.link(first, place / f"{number:08d}.jpg")
    source = open_images(images)
    schema = table_schema(ProposalSettings())
    with pq.ParquetWriter(folder / "table.parquet", schema, compression="zstd") as writer:
        for start in range(0, count, 50_000):
            keys = [source.key(index) for index in range(start, min(count, start + 50_000))]
            boxes = pa.array([[[0, 0, 16, 16]] * 8] * len(keys), schema.field("boxes").type)
            sides = [pa.array([side] * len(keys), pa.int32()) for side in (32, 24)]
            errors = pa.nulls(len(keys), pa.string())
            writer.write_table(pa.Table.from_arrays([pa.array(keys), *sides, boxes, errors], schema=schema))


def headers(folder: Path) -> None:
    """Reads the size of every image."""
    source = open_images(folder / "images")
    for index in range(len(source)):
        image_file_size(folder / "images" / source.key(index))


def look_up(source: ImageSource, folder: Path) -> None:
    """Reads the table, checks it, and finds one image in a hundred in it."""
    table = ProposalTable.read(folder / "table.parquet")
    _check_table(table, source)
    readable_images(source, table)
    for index in range(0, len(source), 100):
        table.boxes(source.key(index))


def order(count: int) -> None:
    """Computes the images of the first batch."""
    Stream(np.arange(count), 256, 0).batch(0)


def together(folder: Path) -> None:
    """What `pretrain` does before its first batch."""
    source = open_images(folder / "images")
    digest_names(source)
    look_up(source, folder)
    order(len(source))


PHASES: dict[str, Callable[[Path], object]] = {
    "list": lambda folder: open_images(folder / "images"),
    "digest": lambda folder: digest_names(open_images(folder / "images")),
    "headers": headers,
    "table": lambda folder: look_up(open_images(folder / "images"), folder),
    "propose": lambda folder: Job.of(folder / "images", folder / "other", ProposalSettings(), overwrite=False).folder,
    "order": lambda folder: order(len(open_images(folder / "images"))),
    "together": together,
}


def measured(phase: str, folder: Path) -> dict[str, float]:
    """Seconds of a phase, and its peak memory in MiB above that before it."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start, cpu = time.monotonic(), time.process_time()
    PHASES[phase](folder)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "MiB": round((status("VmHWM") - before) / 1024),
    }


def status(field: str) -> int:
    """A field of /proc/self/status in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def main() -> None:
    """Measures, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        print(json.dumps(measured(arguments.phase, arguments.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="many_files", dir=arguments.folder))
    try:
        start = time.monotonic()
        make(folder, arguments.files, flat=arguments.flat)
        made = round(time.monotonic() - start, 1)
        found = {}
        for phase in arguments.phases:
            command = [sys.executable, __file__, "--phase", phase, "--folder", str(folder)]
            found[phase] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    finally:
        shutil.rmtree(folder)
    layout = "all in one folder" if arguments.flat else "1,000 in each folder"
    result = {"files": arguments.files, "layout": layout, "made_seconds": made, **found, "machine": machine()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
