"""The cost of large runs of SoCo-R50-FPN, computed from measured unit costs.

    python benchmarks/scaling.py [--images DIR] [--gpu-images-per-second RATE] [--markdown]

Prints one JSON object: core-hours for proposals, storage, GPU-hours, cores for data workers, network traffic at 8 to
512 GPUs, and where each bottleneck begins; with `--markdown`, the same as the tables of docs/scaling.md.

Times come from the runs in `benchmarks/results` (medians, if there are several), parameters and batch norms from the
networks themselves, and sizes on disk from making tables of the images in `--images` and packing them. Missing
measurements read "not measured". Keys ending in `_estimate` assume a share of an assumed matrix rate, those ending in
`_bound` all of that rate, which no step reaches; `assumptions` has both and the network's figures. A rate given with
`--gpu-images-per-second` replaces the measured one. The rate of one of several GPUs is computed from the time of a step
alone plus that of batch norm's exchanges.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from network_traffic import FLOAT, Networks, soco_r50_fpn
from scaling_tables import NOT_MEASURED, markdown
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.watch import HEADROOM

RESULTS = Path(__file__).parent / "results"
RUNS = (
    ("ImageNet-1k, 100 epochs", 1_281_167, 100),
    ("ImageNet-1k, 400 epochs", 1_281_167, 400),
    ("ImageNet-22k, 100 epochs", 14_197_122, 100),
    ("a billion images, once", 1_000_000_000, 1),
)
"""Name, images, epochs."""
GPUS = (8, 16, 32, 64, 128, 256, 512)
METHODS = ("single", "fast")
BOX = 4 * FLOAT
ROW = 2 * 4 + 8 + 8 + 4
"""Bytes of a table row in memory, without its boxes and its key: width and height, the boxes' offset, its place in the
order of keys, and the key's offset."""


@dataclass(frozen=True)
class Assumptions:
    """Values that are assumed, not measured; each is a command-line option."""

    matrix_tflops: float = 989.0
    """TFLOP/s of dense bfloat16 matrix products on one GPU, from the data sheet of an H100 SXM or H200."""
    matrix_share: float = 0.07
    """The share of it that a step achieves; a guess."""
    gigabytes_per_second: float = 50.0
    """Rate at which each GPU sends over the slowest link of the ring; 50 is one 400 Gbit/s adapter per GPU."""
    exchange_microseconds: float = 30.0
    """Latency of one exchange of batch statistics in addition to its bytes, on any number of GPUs; a guess."""
    cores_per_gpu: float = 16.0
    """CPU cores of a machine divided by its GPUs."""


def median(files: Iterable[Path], *keys: str) -> float | None:
    """The median of a figure over recorded runs; None without a run.

    A file holds one run, a list of them, or such a list as its `runs`.
    """
    values = []
    for path in files:
        content = json.loads(path.read_text())
        runs = content if isinstance(content, list) else content.get("runs", [content])
        for value in runs:
            for key in keys:
                value = value[key]
            values.append(float(value))
    return statistics.median(values) if values else None


def timed_units(results: Path) -> dict[str, float | None]:
    """The costs of one image, from the recorded runs."""
    proposals = list(results.glob("proposals_speed.json"))
    units = {f"proposals_{method}_ms": median(proposals, "milliseconds", method) for method in METHODS}

    def on_gpu(design: str) -> float | None:
        """Images per second of a design, if the run measured it."""
        path = results / "training_step_cuda.json"
        rate = json.loads(path.read_text())["images_per_second"].get(design) if path.exists() else None
        return None if rate is None else float(rate)

    return units | {
        "sample_ms": median([results / "input_pipeline.json"], "milliseconds", "sample"),
        "gflop_per_image": median([results / "training_step_cpu.json"], "gflop_per_image"),
        "gpu_images_per_second": on_gpu("ours_bf16"),
        "gpu_images_per_second_synchronised": on_gpu("ours_bf16_synchronised"),
    }


def sizes_on_disk(images: Path | None) -> dict[str, float | None]:
    """Bytes per image of proposal tables and packed shards, and boxes per image, for the images of a folder."""
    names = ("images", "image_bytes", "key_bytes", "shard_bytes")
    units: dict[str, float | None] = dict.fromkeys(names)
    units |= {f"{what}_{method}": None for method in METHODS for what in ("boxes", "table_bytes")}
    if images is None:
        return units
    # Imported here because the formulas do not need their compiled code.
    from socodet.images.pack import pack
    from socodet.images.source import open_images
    from socodet.proposals.make_table import propose
    from socodet.proposals.settings import ProposalSettings

    source = open_images(images)
    count = len(source)
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            path = Path(folder) / f"{method}.parquet"
            made = propose(source, path, settings=ProposalSettings(method), show_progress=False)  # type: ignore[arg-type]
            units[f"boxes_{method}"] = made.boxes / count
            units[f"table_bytes_{method}"] = path.stat().st_size / count
        shards = Path(folder) / "shards"
        pack(source, shards, show_progress=False)
        units["shard_bytes"] = sum(file.stat().st_size for file in shards.iterdir()) / count
    units["images"] = count
    units["image_bytes"] = sum(len(source.read(i)) for i in range(count)) / count
    units["key_bytes"] = sum(len(os.fsencode(source.key(i))) for i in range(count)) / count
    return units


def rates(units: dict[str, Any], assumptions: Assumptions) -> dict[str, float | None]:
    """Images per second of one GPU: measured, estimated, and the upper bound."""
    bound = 1e3 * assumptions.matrix_tflops / units["gflop_per_image"]
    return {
        "measured": units["gpu_images_per_second"],
        "estimate": assumptions.matrix_share * bound,
        "bound": bound,
    }


def scaled(unit: float | None, factor: float) -> float | None:
    """A unit's cost times `factor`; None if the unit was not measured."""
    return None if unit is None else unit * factor


def rate_among(networks: Networks, gpus: int, units: dict[str, Any], a: Assumptions) -> float | None:
    """Images per second of one of several GPUs: a step alone, then batch norm's exchanges, without overlap.

    If it was measured, a step alone is one with synchronised norms in a single process.
    """
    rate = units["gpu_images_per_second_synchronised"] or units["gpu_images_per_second"]
    if rate is None:
        return None
    times, images = step_times(networks, gpus, a), TrainingSettings().batch_size / gpus
    seconds: float = images / rate + (times["norm_bytes_ms"] + times["norm_waits_ms"]) / 1e3
    return images / seconds


def cost_of_run(
    name: str, images: int, epochs: int, networks: Networks, units: dict[str, Any], a: Assumptions
) -> dict[str, Any]:
    """The costs of a run; hours of one core or one GPU, sizes in 10^9 bytes."""
    row: dict[str, Any] = {"run": name, "images": images, "epochs": epochs}
    row["steps"] = TrainingSettings().steps(epochs, images)
    for method in METHODS:
        row[f"proposal_core_hours_{method}"] = scaled(units[f"proposals_{method}_ms"], images / 3.6e6)
        row[f"table_gb_{method}"] = scaled(units[f"table_bytes_{method}"], images / 1e9)
        boxes, key = units[f"boxes_{method}"], units["key_bytes"]
        in_memory = None if boxes is None else BOX * boxes + key + ROW
        row[f"table_memory_gb_{method}"] = scaled(in_memory, images / 1e9)
    row["shards_gb"] = scaled(units["shard_bytes"], images / 1e9)
    row["sample_core_hours"] = scaled(units["sample_ms"], epochs * images / 3.6e6)
    for kind, rate in rates(units, a).items():
        row[f"gpu_hours_{kind}"] = None if rate is None else epochs * images / rate / 3600
    among_others = rate_among(networks, GPUS[0], units, a)
    row["gpu_hours_of_several"] = None if among_others is None else epochs * images / among_others / 3600
    return row


def step_times(networks: Networks, gpus: int, a: Assumptions) -> dict[str, float]:
    """Milliseconds of a step's exchanges, without overlap."""
    per_byte = 1e3 / (a.gigabytes_per_second * 1e9)
    return {
        "gradients_ms": networks.gradient_bytes(gpus) * per_byte,
        "norm_bytes_ms": networks.norm_bytes(gpus) * per_byte,
        "norm_waits_ms": networks.norm_exchanges * a.exchange_microseconds / 1e3,
    }


def cost_of_step(networks: Networks, gpus: int, units: dict[str, Any], a: Assumptions) -> dict[str, Any]:
    """One step with the recipe's batch on `gpus` GPUs: what each sends, in 10^6 bytes, and how long it takes."""
    images = TrainingSettings().batch_size / gpus
    row: dict[str, Any] = {
        "gpus": gpus,
        "images_per_gpu": images,
        "gradients_mb": networks.gradient_bytes(gpus) / 1e6,
        "norms_mb": networks.norm_bytes(gpus) / 1e6,
        **step_times(networks, gpus, a),
    }
    for kind, rate in rates(units, a).items():
        row[f"arithmetic_ms_{kind}"] = None if rate is None else 1e3 * images / rate
    steps = TrainingSettings().steps(RUNS[0][2], RUNS[0][1])
    return row | {"first_run_sent_tb": steps * (row["gradients_mb"] + row["norms_mb"]) / 1e6}


def beginnings(networks: Networks, units: dict[str, Any], a: Assumptions) -> list[dict[str, Any]]:
    """For each exchange, the fewest GPUs at which it takes a tenth of a step's arithmetic, and all of it."""
    batch = TrainingSettings().batch_size
    speeds = rates(units, a)
    rows = []
    for exchange in ("gradients_ms", "norm_bytes_ms", "norm_waits_ms"):
        row: dict[str, Any] = {"exchange": exchange.removesuffix("_ms")}
        for kind in ("measured", "estimate"):
            rate = speeds[kind]
            for share, which in ((0.1, "a_tenth"), (1.0, "all")):
                row[f"{which}_from_gpus_{kind}"] = None
                if rate is not None:
                    reached = (
                        gpus
                        for gpus in range(2, batch + 1)
                        if step_times(networks, gpus, a)[exchange] >= share * 1e3 * batch / gpus / rate
                    )
                    row[f"{which}_from_gpus_{kind}"] = next(reached, f"above {batch}")
        rows.append(row)
    return rows


def data_workers(units: dict[str, Any], a: Assumptions) -> list[dict[str, Any]]:
    """Cores that can feed a GPU `HEADROOM` times over, with proposals from a table or made online."""
    ways = {"a table": units["sample_ms"]}
    for method in METHODS:
        made = units[f"proposals_{method}_ms"]
        ways[f"made online, {method}"] = None if made is None else units["sample_ms"] + made
    rows = []
    for proposals, ms in ways.items():
        row: dict[str, Any] = {"proposals": proposals, "headroom": HEADROOM}
        row["cores_per_1000_images_per_second"] = scaled(ms, HEADROOM)
        row["fed_images_per_second_per_gpu"] = None if ms is None else 1e3 * a.cores_per_gpu / (HEADROOM * ms)
        for kind, rate in rates(units, a).items():
            row[f"cores_per_gpu_{kind}"] = None if rate is None else scaled(ms, HEADROOM * rate / 1e3)
        rows.append(row)
    return rows


def costs(networks: Networks, units: dict[str, Any], a: Assumptions) -> dict[str, Any]:
    """Everything that the command prints; None for missing measurements."""
    speeds = rates(units, a)
    return {
        "units": units,
        "assumptions": asdict(a),
        "networks": {
            "parameters": networks.parameters,
            "encoder_parameters": networks.encoder_parameters,
            "batch_norms": {"online": len(networks.online_norms), "target": len(networks.target_norms)},
            "channels": {"online": sum(networks.online_norms), "target": sum(networks.target_norms)},
            "views": networks.views,
            "norm_exchanges_per_step": networks.norm_exchanges,
        },
        "batch_size": TrainingSettings().batch_size,
        "images_per_second_per_gpu": speeds,
        "images_per_second_per_gpu_of_several": rate_among(networks, GPUS[0], units, a),
        "read_mb_per_second_per_gpu": {
            kind: None if rate is None else scaled(units["shard_bytes"], rate / 1e6) for kind, rate in speeds.items()
        },
        "runs": [cost_of_run(*run, networks, units, a) for run in RUNS],
        "steps": [cost_of_step(networks, gpus, units, a) for gpus in GPUS],
        "data_workers": data_workers(units, a),
        "beginnings": beginnings(networks, units, a),
    }


def said(value: Any) -> Any:
    """The same values rounded to significant digits, with `NOT_MEASURED` for None."""
    if isinstance(value, dict):
        return {key: said(item) for key, item in value.items()}
    if isinstance(value, list):
        return [said(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return NOT_MEASURED if value is None else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images of typical size on disk")
    parser.add_argument(
        "--gpu-images-per-second", type=float, help="rate of one GPU; default: from training_step_cuda.json"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    arguments = vars(parser.parse_args())
    assumptions = Assumptions(**{field.name: arguments[field.name] for field in fields(Assumptions)})
    units = timed_units(RESULTS) | sizes_on_disk(arguments["images"])
    if arguments["gpu_images_per_second"] is not None:
        units["gpu_images_per_second"] = arguments["gpu_images_per_second"]
        units["gpu_images_per_second_synchronised"] = None
    result = said(costs(soco_r50_fpn(), units, assumptions))
    print(markdown(result) if arguments["markdown"] else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
