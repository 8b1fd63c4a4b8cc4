"""The figures of `scaling.py` as Markdown tables."""

from collections.abc import Sequence
from typing import Any

NOT_MEASURED = "not measured"
EXCHANGES = {"gradients": "gradients", "norm_bytes": "batch norm's bytes", "norm_waits": "batch norm's latency"}


def figure(value: Any) -> str:
    """A number for a table: three significant digits, an integer above 100."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def is_estimated(result: dict[str, Any]) -> bool:
    """Whether the GPU's rate is an estimate."""
    return bool(result["images_per_second_per_gpu"]["measured"] == NOT_MEASURED)


def without_estimates(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures whose heading does not mark them as estimates."""
    return {heading: value for heading, value in figures.items() if "estimate" not in heading}


def shown(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows under the columns' headings; `columns` maps a heading to a key."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[figure(row[key]) for key in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def unit_costs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The table that the others are computed from."""
    units, networks = result["units"], result["networks"]
    rate = result["images_per_second_per_gpu"]
    share, matrix = (f"{result['assumptions'][key]:g}" for key in ("matrix_share", "matrix_tflops"))
    norms, channels = networks["batch_norms"], networks["channels"]
    costs = {
        "proposals, `single`, ms per image": units["proposals_single_ms"],
        "proposals, `fast`, ms per image": units["proposals_fast_ms"],
        "finished sample, ms": units["sample_ms"],
        "arithmetic, GFLOP per image": units["gflop_per_image"],
        "GPU alone, images/s": rate["measured"],
        "GPU, norms synchronised with no other process, images/s": units["gpu_images_per_second_synchronised"],
        f"one of {result['steps'][0]['gpus']} GPUs, images/s, computed": result["images_per_second_per_gpu_of_several"],
        f"GPU, images/s, estimate: {share} of {matrix} TFLOP/s": rate["estimate"],
        f"GPU, images/s, bound: all of {matrix} TFLOP/s": rate["bound"],
        "images whose sizes were measured": units["images"],
        "original image, bytes": units["image_bytes"],
        "packed image, bytes": units["shard_bytes"],
        "boxes, `single`, per image": units["boxes_single"],
        "boxes, `fast`, per image": units["boxes_fast"],
        "table on disk, `single`, bytes per image": units["table_bytes_single"],
        "table on disk, `fast`, bytes per image": units["table_bytes_fast"],
        "parameters with a gradient": networks["parameters"],
        "of these, in the encoder": networks["encoder_parameters"],
        "batch norms, online network": norms["online"],
        "batch norms, target network": norms["target"],
        "their channels, online network": channels["online"],
        "their channels, target network": channels["target"],
        "views": networks["views"],
        "exchanges of batch statistics per step": networks["norm_exchanges_per_step"],
    }
    return [{"cost": name, "figure": value} for name, value in _asked(costs, result).items()]


def _asked(figures: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return figures if is_estimated(result) else without_estimates(figures)


def limits(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Single figures that limit what is possible."""
    read = result["read_mb_per_second_per_gpu"]
    found = {
        "read from packed shards, MB/s per GPU": read["measured"],
        "read from packed shards, MB/s per GPU, estimate": read["estimate"],
    }
    return [{"limit": name, "figure": value} for name, value in _asked(found, result).items()]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Each table by its title; estimates only if no rate was measured."""

    def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
        return shown(rows, columns if is_estimated(result) else without_estimates(columns))

    return {
        "Unit costs": table(unit_costs(result), {"": "cost", "figure": "figure"}),
        "Runs: proposals and storage": table(
            result["runs"],
            {
                "": "run",
                "images": "images",
                "proposals, core-hours, `single`": "proposal_core_hours_single",
                "proposals, core-hours, `fast`": "proposal_core_hours_fast",
                "table, GB, `single`": "table_gb_single",
                "table, GB, `fast`": "table_gb_fast",
                "in memory, GB per machine, `single`": "table_memory_gb_single",
                "in memory, GB per machine, `fast`": "table_memory_gb_fast",
                "packed shards, GB": "shards_gb",
            },
        ),
        "Runs: training": table(
            result["runs"],
            {
                "": "run",
                "steps": "steps",
                "samples, core-hours": "sample_core_hours",
                "GPU-hours, one GPU": "gpu_hours_measured",
                f"GPU-hours, {result['steps'][0]['gpus']} GPUs, computed": "gpu_hours_of_several",
                "GPU-hours, estimate": "gpu_hours_estimate",
                "GPU-hours, at least": "gpu_hours_bound",
            },
        ),
        "Data workers": table(
            result["data_workers"],
            {
                "proposals": "proposals",
                "cores for 1,000 images/s": "cores_per_1000_images_per_second",
                "images/s per GPU that its cores feed": "fed_images_per_second_per_gpu",
                "cores per GPU": "cores_per_gpu_measured",
                "cores per GPU, estimate": "cores_per_gpu_estimate",
            },
        ),
        "A step over many GPUs": table(
            result["steps"],
            {
                "GPUs": "gpus",
                "images per GPU": "images_per_gpu",
                "gradients, MB": "gradients_mb",
                "batch norm, MB": "norms_mb",
                "gradients, ms": "gradients_ms",
                "batch norm's bytes, ms": "norm_bytes_ms",
                "batch norm's latency, ms": "norm_waits_ms",
                "arithmetic, ms": "arithmetic_ms_measured",
                "arithmetic, ms, estimate": "arithmetic_ms_estimate",
                "sent in ImageNet-1k's 100 epochs, TB per GPU": "first_run_sent_tb",
            },
        ),
        "When communication begins to matter": table(
            [row | {"exchange": EXCHANGES[row["exchange"]]} for row in result["beginnings"]],
            {
                "exchange": "exchange",
                "a tenth of the arithmetic, from GPUs": "a_tenth_from_gpus_measured",
                "as long as the arithmetic, from GPUs": "all_from_gpus_measured",
                "a tenth, estimate": "a_tenth_from_gpus_estimate",
                "as long, estimate": "all_from_gpus_estimate",
            },
        ),
        "Limits": table(limits(result), {"": "limit", "figure": "figure"}),
    }


def markdown(result: dict[str, Any]) -> str:
    """All tables under their titles."""
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in tables(result).items())
