"""What importing this package, its command line and each dependency costs: `python benchmarks/import_cost.py`.

Milliseconds of CPU time of an interpreter that imports only this module, minus those of one that imports nothing; the
minimum of three. Shared imports, such as NumPy, are counted in each. Prints JSON.
"""

import json
import resource
import subprocess
import sys

MODULES = (
    *("socodet", "socodet.cli", "torch", "torchvision", "numba", "llvmlite.binding", "numpy", "pyarrow.parquet"),
    *("PIL.Image", "simplejpeg", "matplotlib.figure", "tensorboard.summary.writer.record_writer", "jinja2", "yaml"),
    *(
        "rich.progress",
        "tyro",
        "docstring_parser",
        "cattrs",
        "faster_coco_eval",
        "ijson",
        "packaging.requirements",
        "safetensors",
    ),
    *("braceexpand", "huggingface_hub.hf_api", "wandb", "mlflow"),
)


def milliseconds(statement: str) -> float:
    """CPU time of an interpreter that runs the statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Prints the milliseconds for each module."""
    nothing = min(milliseconds("pass") for _ in range(5))
    costs = {name: min(milliseconds(f"import {name}") for _ in range(3)) - nothing for name in MODULES}
    print(json.dumps({name: round(cost) for name, cost in costs.items()}, indent=2))


if __name__ == "__main__":
    main()
