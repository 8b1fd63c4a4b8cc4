"""Checks the sdist and the wheel in a folder: their contents, their dependencies, and that the wheel's command works.

    python .ci/check_dist.py dist

The wheel is installed into an empty environment, which borrows its dependencies from this one instead of downloading
them; a check of the sources shows that every import is declared. Two steps on the shipped photographs, an export and
a report then run in a folder outside the checkout. `DEMO=1` also runs `socodet demo`, which takes minutes.
"""

import ast
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEEDED = (
    *("socodet/py.typed", "socodet/reports/page.html", "socodet/reports/page.css", "socodet/runtime/shown.html"),
    *("socodet/images/photographs/astronaut.jpg", "socodet/images/photographs/objects.json"),
    "socodet/images/photographs/ATTRIBUTION.md",
)
IN_SDIST = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "tests/conftest.py",
)
LARGEST = 5_000_000
"""Size limit of each file in bytes."""
OPTIONAL = {"detectron2", "mmdet", "cv2", "IPython", "triton"}
"""Imported only if installed; triton comes with torch for CUDA."""


def check(holds: bool, problem: str) -> None:
    """Exits with the problem unless the condition holds."""
    if not holds:
        sys.exit(f"check_dist: {problem}")


def check_contents(wheel: Path, sdist: Path) -> None:
    """Checks that required files are there and unwanted ones are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for needed in NEEDED:
        check(needed in names, f"{wheel.name}: lacks {needed}")
    for licence in ("LICENSE", "src/socodet/images/photographs/ATTRIBUTION.md"):
        check(any(name.endswith(f"/licenses/{licence}") for name in names), f"{wheel.name}: lacks {licence}")
    tops = {name.partition("/")[0] for name in names}
    check(len(tops) == 2 and "socodet" in tops, f"{wheel.name}: holds {', '.join(sorted(tops))}")
    unwanted = [name for name in names if "test" in Path(name).name or name.endswith((".pyc", ".pt", ".pth", ".nbc"))]
    check(not unwanted, f"{wheel.name}: holds {', '.join(unwanted[:3])}")
    with tarfile.open(sdist) as source:
        members = {name.partition("/")[2] for name in source.getnames()}
    for needed in (*IN_SDIST, *(f"src/{name}" for name in NEEDED)):
        check(needed in members, f"{sdist.name}: lacks {needed}")
    for file in (wheel, sdist):
        check(file.stat().st_size < LARGEST, f"{file.name}: has {file.stat().st_size:,} bytes")


def check_imports(wheel: Path) -> None:
    """Checks that every import is declared: as a dependency, or, if it is within a function, at least as an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
        wanted = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
        extra = {canonicalize_name(one.name) for one in wanted if one.marker and "extra" in str(one.marker)}
        core = {canonicalize_name(one.name) for one in wanted} - extra | {
            canonicalize_name(one.name) for one in wanted if not one.marker
        }
        homes = importlib.metadata.packages_distributions()
        for name in archive.namelist():
            if not name.endswith(".py"):
                continue
            tree = ast.parse(archive.read(name))
            for module, within in imports(tree):
                if module in sys.stdlib_module_names or module in {"socodet", *OPTIONAL}:
                    continue
                declared = core | extra if within else core
                found = {canonicalize_name(home) for home in homes.get(module, [module])}
                check(bool(found & declared), f"{name}: imports {module}, which is not declared")


def imports(tree: ast.Module) -> set[tuple[str, bool]]:
    """Top-level modules imported, and whether only within functions or for type checking."""
    found = set()

    def visit(node: ast.AST, within: bool) -> None:
        if isinstance(node, ast.Import):
            found.update((one.name.partition(".")[0], within) for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((str(node.module).partition(".")[0], within))
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try | ast.If)
        for child in ast.iter_child_nodes(node):
            visit(child, within or later)

    visit(tree, False)
    return found


def run_elsewhere(wheel: Path) -> None:
    """Installs the wheel into an empty environment, and runs its command outside the checkout."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        python = folder / "env" / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*install, wheel.resolve()], check=True)
        paths = {"base": folder / "env", "platbase": folder / "env"}
        own = Path(sysconfig.get_path("purelib", vars={name: str(path) for name, path in paths.items()}))
        (own / "dependencies.pth").write_text(
            sysconfig.get_path("purelib") + "\n"
        )  # .pth files there are not processed
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        work = folder / "elsewhere"
        work.mkdir()

        def call(*command: str | Path) -> str:
            done = subprocess.run(command, cwd=work, env=environment, check=True, text=True, stdout=subprocess.PIPE)
            return done.stdout.strip()

        where = call(python, "-c", "import socodet; print(socodet.__file__)")
        check(Path(where).is_relative_to(own), f"the installed environment takes socodet from {where}")
        command = folder / "env" / "bin" / "socodet"
        version = wheel.name.split("-")[1]
        check(call(command, "--version") == f"socodet {version}", "--version is not the wheel's")
        photographs = call(python, "-c", "import socodet.images.photographs as p; print(p.photographs())")
        check(Path(photographs).is_relative_to(own), f"the photographs are taken from {photographs}")
        begin = "pretrain --output run --recipe tiny --epochs 2 --batch-size 2 --limit 2 --proposals.method single"
        call(command, *begin.split(), "--max-steps", "2", "--device", "cpu", "--workers", "0", photographs)
        call(command, "export", "run", "--output", "first.safetensors")
        call(command, "report", "run", "--output", "page.html")
        check((work / "page.html").stat().st_size > 10_000, "the report wrote no page")
        if os.environ.get("DEMO"):
            print(call(command, "demo", "--output", "demo"))


def main() -> None:
    """Checks the newest files of the folder."""
    folder = Path(sys.argv[1])
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    check(len(wheels) == len(sdists) == 1, f"{folder}: must hold one wheel and one sdist")
    check_contents(wheels[0], sdists[0])
    check_imports(wheels[0])
    run_elsewhere(wheels[0])
    print(f"check_dist: {wheels[0].name} and {sdists[0].name} are as they should be")


if __name__ == "__main__":
    main()
