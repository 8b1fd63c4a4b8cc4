"""benchmarks/scaling.py: formulas on round numbers, counts of the networks, and the figures in docs/scaling.md."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import network_traffic  # noqa: E402
import scaling  # noqa: E402
import scaling_tables  # noqa: E402

ROUND = scaling.Assumptions(
    matrix_tflops=1000, matrix_share=0.5, gigabytes_per_second=1, exchange_microseconds=100, cores_per_gpu=13
)
TINY = network_traffic.Networks(
    parameters=1_000_000,
    encoder_parameters=900_000,
    online_norms=(10, 20),
    target_norms=(10,),
    online_exchanges=2,
    target_exchanges=1,
    views=3,
)
UNITS = {
    "proposals_single_ms": 3.6,
    "proposals_fast_ms": None,
    "sample_ms": 2.0,
    "gflop_per_image": 100.0,
    "gpu_images_per_second": None,
    "gpu_images_per_second_synchronised": None,
    "images": 10,
    "image_bytes": 1e5,
    "key_bytes": 20.0,
    "shard_bytes": 2e4,
    "boxes_single": 30.0,
    "boxes_fast": None,
    "table_bytes_single": 500.0,
    "table_bytes_fast": None,
}


def test_ring_all_reduce_matches_a_step_by_step_simulation():
    gpus, size = 5, 20
    # All-reduce: one part of the data per GPU; n - 1 rounds of summing and n - 1 of passing on, one part per round.
    assert network_traffic.ring_all_reduce(size, gpus) == sum(size / gpus for _ in range(2 * (gpus - 1))) == 32


def test_bytes_and_exchanges_of_batch_norm():
    # Forward: (2 · 10 + 1) + (2 · 20 + 1) online and (2 · 10 + 1) target doubles. Backward: 2 · 10 + 2 · 20 floats.
    # For each of three views, times 2 · 1/2 on 2 GPUs and 2 · 3/4 on 4.
    assert TINY.norm_bytes(2) == 3 * (8 * (21 + 41 + 21) + 4 * 60)
    assert TINY.norm_bytes(4) == 1.5 * TINY.norm_bytes(2)
    assert TINY.norm_exchanges == 2 + 1 + 2  # of all views at once
    assert TINY.gradient_bytes(2) == 4_000_000
    assert TINY.gradient_bytes(4) == 6_000_000


def test_parameters_and_norms_of_the_networks_are_counted():
    r50_fpn = network_traffic.soco_r50_fpn()
    head = 1024 * 4096 + 4096 + 2 * 4096 + 4096 * 256 + 256
    predictor = 256 * 4096 + 4096 + 2 * 4096 + 4096 * 256 + 256
    assert r50_fpn.encoder_parameters == 42_061_888
    assert r50_fpn.parameters == 42_061_888 + head + predictor
    stem = [64]
    blocks = [(64, 3), (128, 4), (256, 6), (512, 3)]
    body = stem + [c for width, n in blocks for c in [width, width, 4 * width] * n + [4 * width]]
    pyramid_and_head, hidden = 12 * [256], [4096]
    assert sorted(r50_fpn.target_norms) == sorted(body + pyramid_and_head + hidden)
    assert sorted(r50_fpn.online_norms) == sorted(body + pyramid_and_head + 2 * hidden)
    assert r50_fpn.views == 3
    # A forward and a backward pass with 67 norms, a forward pass with 66. The pyramid's four laterals share one
    # exchange, its four outputs another. tests/models/test_exchanges.py counts the exchanges of a real step.
    assert r50_fpn.norm_exchanges == 2 * (67 - 6) + (66 - 6) == 182


def test_cost_of_a_run():
    row = scaling.cost_of_run("a million, twice", 1_000_000, 2, TINY, UNITS, ROUND)
    assert row["steps"] == 976  # 2,000,000 / 2,048
    assert row["proposal_core_hours_single"] == pytest.approx(1)  # 3.6 ms · 10⁶ = 3,600 s
    assert row["table_gb_single"] == pytest.approx(0.5)
    assert row["table_memory_gb_single"] == pytest.approx((30 * 16 + 20 + 28) / 1000)
    assert row["shards_gb"] == pytest.approx(20)
    assert row["sample_core_hours"] == pytest.approx(2e6 * 0.002 / 3600)
    assert row["gpu_hours_bound"] == pytest.approx(2e6 / 10_000 / 3600)  # 1,000 TFLOP/s over 100 GFLOP
    assert row["gpu_hours_estimate"] == pytest.approx(2 * row["gpu_hours_bound"])
    rated = UNITS | {"gpu_images_per_second": 1000.0}
    rated_row = scaling.cost_of_run("a million, twice", 1_000_000, 2, TINY, rated, ROUND)
    assert rated_row["gpu_hours_measured"] == pytest.approx(2000 / 3600)
    # 256 images on each of 8 GPUs: 256 ms of arithmetic, five exchanges of 100 µs, and the transfer at 1 GB/s.
    step = 256 + 0.5 + TINY.norm_bytes(8) / 1e6
    assert rated_row["gpu_hours_of_several"] == pytest.approx(2000 / 3600 * step / 256)
    rated["gpu_images_per_second_synchronised"] = 500.0
    assert scaling.rate_among(TINY, 8, rated, ROUND) == pytest.approx(256 / (step + 256) * 1e3)
    for missing in (
        "gpu_hours_measured",
        "gpu_hours_of_several",
        "proposal_core_hours_fast",
        "table_gb_fast",
        "table_memory_gb_fast",
    ):
        assert row[missing] is None


def test_cost_of_a_step():
    row = scaling.cost_of_step(TINY, 2, UNITS | {"gpu_images_per_second": 512.0}, ROUND)
    assert row["images_per_gpu"] == 1024
    assert row["gradients_mb"] == 4
    assert row["gradients_ms"] == pytest.approx(4)  # at 1 GB/s
    assert row["norm_bytes_ms"] == pytest.approx(TINY.norm_bytes(2) / 1e6)
    assert row["norm_waits_ms"] == pytest.approx(5 * 0.1)
    assert row["arithmetic_ms_measured"] == pytest.approx(2000)
    assert row["arithmetic_ms_estimate"] == pytest.approx(1024 / 5000 * 1000)


def test_gpus_from_which_an_exchange_matters():
    units = UNITS | {"gpu_images_per_second": 2048.0}  # a step's arithmetic takes 1/n seconds
    waits = {row["exchange"]: row for row in scaling.beginnings(TINY, units, ROUND)}["norm_waits"]
    assert waits["a_tenth_from_gpus_measured"] == 200  # 0.5 ms ≥ 100 ms / n
    assert waits["all_from_gpus_measured"] == 2000  # 0.5 ms ≥ 1,000 ms / n
    unknown = scaling.beginnings(TINY, UNITS, ROUND)[0]
    assert unknown["all_from_gpus_measured"] is None
    fast = scaling.Assumptions(gigabytes_per_second=1e12)
    assert scaling.beginnings(TINY, units, fast)[0]["all_from_gpus_measured"] == "above 2048"


def test_cores_of_data_workers():
    table, single, fast = scaling.data_workers(UNITS | {"gpu_images_per_second": 500.0}, ROUND)
    assert table["cores_per_1000_images_per_second"] == pytest.approx(2.6)  # 1.3 · 2 ms
    assert table["fed_images_per_second_per_gpu"] == pytest.approx(5000)  # 13 cores
    assert table["cores_per_gpu_measured"] == pytest.approx(1.3)
    assert single["cores_per_gpu_measured"] == pytest.approx(1.3 * 5.6 / 2)
    assert fast["cores_per_gpu_measured"] is None


def test_units_are_medians_and_none_where_nothing_was_recorded(tmp_path):
    def record(name, content):
        (tmp_path / name).write_text(json.dumps(content))

    record("input_pipeline.json", {"milliseconds": {"sample": 2.5}})
    record("training_step_cpu.json", [{"gflop_per_image": flops} for flops in (5, 1, 3)])
    units = scaling.timed_units(tmp_path)
    assert units["sample_ms"] == 2.5
    assert units["gflop_per_image"] == 3
    assert units["proposals_single_ms"] is units["gpu_images_per_second"] is None
    assert units["gpu_images_per_second_synchronised"] is None
    runs = [{"milliseconds": {"single": single, "fast": fast}} for single, fast in ((7, 30), (9, 40))]
    record("proposals_speed.json", {"command": "as it was run", "runs": runs})
    record("training_step_cuda.json", {"images_per_second": {"ours_bf16": 700, "ours_bf16_synchronised": 650}})
    units = scaling.timed_units(tmp_path)
    assert units["gpu_images_per_second_synchronised"] == 650
    assert (units["proposals_single_ms"], units["proposals_fast_ms"]) == (8, 35)
    assert units["gpu_images_per_second"] == 700


def test_sizes_on_disk(tmp_path):
    from PIL import Image

    for name, side in (("a.jpg", 600), ("b.jpg", 64)):
        Image.radial_gradient("L").resize((side, side)).convert("RGB").save(tmp_path / name)
    units = scaling.sizes_on_disk(tmp_path)
    assert units["images"] == 2
    assert units["key_bytes"] == 5
    assert units["image_bytes"] == sum((tmp_path / name).stat().st_size for name in ("a.jpg", "b.jpg")) / 2
    assert units["boxes_single"] <= units["boxes_fast"]
    assert units["table_bytes_single"] > 16 * units["boxes_single"]


def test_missing_measurements_are_marked():
    result = scaling.said(scaling.costs(TINY, UNITS, ROUND))
    assert result["runs"][0]["gpu_hours_measured"] == "not measured"
    row = next(
        line for line in scaling_tables.markdown(result).splitlines() if line.startswith("| GPU alone, images/s |")
    )
    assert row == "| GPU alone, images/s | not measured |"


def test_the_docs_page_shows_the_recorded_figures():
    result = json.loads((ROOT / "benchmarks/results/scaling.json").read_text())
    document = (ROOT / "docs/scaling.md").read_text()
    for title, table in scaling_tables.tables(result).items():
        assert f"## {title}\n" in document
        assert table in document
