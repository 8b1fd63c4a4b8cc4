"""The command line: one function a command that parses, calls and prints. No logic lives here."""

import contextlib
import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from socodet import __version__
from socodet.errors import InputError

T = TypeVar("T")
Flat = tyro.conf.arg(name="")  # a field of these settings is a flag of its own name
LISTED = 10


def propose(argv: Sequence[str]) -> None:
    """Selective search over every image below a folder, into a proposal table."""
    import socodet.proposals as proposals
    from socodet.proposals.foreign import BoxForm
    from socodet.world import world_from_environment

    world = world_from_environment(meeting=False)
    only_elsewhere = ("--coco-images", "--box-form", "--keep-all")
    idle = only_elsewhere if _value_of("--from", argv) is None else ("--method", "--work-size", "--seed")
    for flag in idle:
        if flag in argv or _value_of(flag, argv) is not None:
            raise InputError(f"propose: {flag} has no effect {'without' if idle is only_elsewhere else 'with'} --from")

    def arguments(
        images: tyro.conf.Positional[Path],
        output: Path,
        settings: Annotated[proposals.ProposalSettings, Flat] = proposals.ProposalSettings(),  # noqa: B008
        workers: int | None = None,
        overwrite: bool = False,
        shard: str | None = None,
        merge: bool = False,
        elsewhere: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
        coco_images: Path | None = None,
        box_form: BoxForm | None = None,
        keep_all: bool = False,
    ) -> proposals.ProposalSummary | proposals.ShareSummary | None:
        """Selective search over every image below a folder, into a proposal table.

        Interrupted, the same command goes on where it was. Started by torchrun or srun, each process makes its share
        and the first one joins them; with a job array, --shard and then --merge do.

        Args:
            images: Folder of images, nested or not; or a list of paths, a COCO file, tar shards, a dataset on disk.
            output: The proposal table to write (.parquet).
            workers: Images under way at once; by default one a core.
            overwrite: Replace a table that exists.
            shard: i/n, such as 2/8: make the second of eight shares and leave it beside the output for --merge.
            merge: Join the shares that --shard made, for the same images and settings.
            elsewhere: Take proposals made elsewhere: JSON of image stem and xywh boxes, COCO results or annotations,
                Parquet, a folder of .npy (xyxy).
            coco_images: COCO file that says which image an image_id is, for COCO results.
            box_form: What the four numbers of a box are, where they are not what is usual in that file.
            keep_all: Do not filter boxes made elsewhere.
        """
        if output.suffix not in ("", ".parquet"):
            raise InputError(f"{output}: a proposal table is a Parquet file; end its name in .parquet")
        if (shard is not None) + merge + (elsewhere is not None) > 1:
            raise InputError("propose: --shard, --merge and --from exclude each other; give one of them")
        if world.size > 1 and (shard is not None or merge or elsewhere is not None):
            raise InputError(
                f"propose: --shard, --merge and --from are for one process, and here are {world.size}; leave them out, "
                "as the processes share the work by themselves, or start one"
            )
        if elsewhere is not None:
            return proposals.convert_proposals(
                images,
                elsewhere,
                output,
                settings=settings,
                keep_all=keep_all,
                coco_images=coco_images,
                form=box_form,
                workers=workers,
                overwrite=overwrite,
            )
        if merge:
            return proposals.merge_shares(images, output, settings=settings, overwrite=overwrite)
        if shard is not None:
            share = proposals.Share.parse(shard)
            return proposals.propose_share(
                images, output, share, settings=settings, workers=workers, overwrite=overwrite
            )
        return proposals.propose_together(
            images, output, world, settings=settings, workers=workers, overwrite=overwrite
        )

    summary = _call(arguments, "propose", argv)
    if summary is None:  # another process of the run speaks
        return
    if isinstance(summary, proposals.ShareSummary):
        print(f"shard {summary.share}: {summary.images} images in {summary.seconds:.1f} s; join all with --merge")
        return
    if summary.images == len(summary.unreadable):
        raise InputError(
            f"{summary.table}: written, but none of its {summary.images} images can be read; check the files"
        )
    rate = summary.images / max(summary.seconds, 1e-9)
    print(
        f"{summary.table}: {summary.boxes} boxes of {summary.images} images "
        f"in {summary.seconds:.1f} s ({rate:.1f} images/s)"
    )
    if isinstance(summary, proposals.ConversionSummary):
        print(
            f"of {summary.given} boxes given for them, {summary.outside} of which reached out of their image; "
            f"{summary.without} images have none"
        )
        if summary.unknown:
            print(
                f"{len(summary.unknown)} names are of no image here and were left out, first "
                f"{_printable(summary.unknown[0])}",
                file=sys.stderr,
            )
    _list_unreadable(summary.unreadable)


def pretrain(argv: Sequence[str]) -> None:
    """Pretrain backbone, FPN and box head on a folder of images, without labels."""
    from socodet.models.settings import ModelSettings
    from socodet.proposals.settings import ProposalSettings
    from socodet.recipes import RECIPES, Recipe, recipe
    from socodet.training.settings import ExecutionSettings, TrainingSettings
    from socodet.views.settings import SampleSettings

    name = _value_of("--recipe", argv)
    if name is None and not {"-h", "--help"} & set(argv):
        raise InputError(f"pretrain: --recipe is missing; choose one of {', '.join(RECIPES)}")
    base = recipe(name or "tiny")
    settings_flag = next((a for a in argv if a.startswith("--proposals.")), None)
    if settings_flag and _value_of("--proposals", argv) is not None:
        raise InputError(f"pretrain: {settings_flag} has no effect where --proposals gives a table; drop one of them")

    def arguments(
        images: tyro.conf.Positional[Path],
        output: Path,
        recipe: str,
        sample: Annotated[SampleSettings, Flat] = base.sample,
        model: Annotated[ModelSettings, Flat] = base.model,
        training: Annotated[TrainingSettings, Flat] = base.training,
        proposals: ProposalSettings = base.proposals,
        table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
        limit: int | None = None,
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        resume: bool = False,
        overwrite: bool = False,
    ) -> Any:
        """Pretrain backbone, FPN and box head on a folder of images, without labels.

        The same command again goes on with a run that was interrupted. The flags' defaults are those of the
        recipe named by --recipe.

        Args:
            images: Folder of images, nested or not; or a list of paths, a COCO file, tar shards, a dataset on disk.
            output: Folder of the run.
            recipe: Its name; `socodet recipes` lists them.
            table: Proposal table made by `socodet propose`; by default the run makes its own.
            limit: Take so many of the images, picked by --seed.
            resume: Go on with the run in the folder; no error when it is finished already.
            overwrite: Throw away the run that is in the folder.
        """
        from socodet.pretraining import pretrain

        return pretrain(
            images,
            Recipe(recipe, sample, model, training, proposals),
            output,
            proposals=table,
            limit=limit,
            execution=execution,
            resume=resume,
            overwrite=overwrite,
        )

    result = _call(arguments, "pretrain", argv)
    if not result.is_first:
        return
    if result.finished:
        print(f"{result.run}: finished, {result.steps} steps; next: socodet export {result.run} --output FILE.pth")
    else:
        print(
            f"{result.run}: stopped by {result.stopped_by} after {result.steps} of {result.total_steps} steps"
            f"{_goes_on(argv)}"
        )
    _list_unreadable(result.unreadable)
    if result.stopped_by in ("SIGINT", "SIGTERM"):
        raise SystemExit(130 if result.stopped_by == "SIGINT" else 143)


def export(argv: Sequence[str]) -> None:
    """Write a run's pretrained modules as a file for a detection framework."""

    def arguments(
        run: tyro.conf.Positional[Path],
        output: Path,
        format: Literal["torchvision"] = "torchvision",
        overwrite: bool = False,
    ) -> Path:
        """Write a run's pretrained modules as a file for a detection framework.

        Args:
            run: Folder that `socodet pretrain` wrote.
            output: File to write: .pth, .pt or .safetensors.
            format: Whose names the weights get.
            overwrite: Replace a file that exists.
        """
        from socodet.export import export_run

        return export_run(run, output, format=format, overwrite=overwrite)

    path = _call(arguments, "export", argv)
    print(f'{path}: written; load it with socodet.load_pretrained(detector, "{path}")')


def inspect(argv: Sequence[str]) -> None:
    """Draw proposals on images, or the views a recipe makes of them."""
    from socodet.recipes import recipe as recipe_of
    from socodet.views.settings import SampleSettings

    base = recipe_of(_value_of("--recipe", argv) or "fpn_100ep")

    def arguments(
        what: tyro.conf.Positional[Literal["proposals", "views"]],
        images: tyro.conf.Positional[Path],
        output: Path,
        table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
        recipe: str = base.name,
        sample: Annotated[SampleSettings, Flat] = base.sample,
        limit: int = 12,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Path:
        """Draw proposals on images, or the views a recipe makes of them.

        Args:
            what: proposals: boxes on each image. views: the views side by side, an object in one colour.
            images: Folder of images, or another source of them.
            output: .png or .html to write.
            table: Proposal table; by default proposals are made for the images shown.
            recipe: Whose views.
            limit: Images shown.
            seed: Of the choice of images and of the views.
            overwrite: Replace a file that exists.
        """
        from socodet.inspection import inspect

        return inspect(what, images, output, table=table, settings=sample, limit=limit, seed=seed, overwrite=overwrite)

    print(f"{_call(arguments, 'inspect', argv)}: written")


def recipes(argv: Sequence[str]) -> None:
    """List the recipes, or print every field of one."""
    from socodet.recipes import describe_recipe, list_recipes

    def arguments(name: tyro.conf.Positional[str | None] = None) -> str:
        """List the recipes, or print every field of one.

        Args:
            name: A recipe.
        """
        return list_recipes() if name is None else describe_recipe(name)

    print(_call(arguments, "recipes", argv))


def demo(argv: Sequence[str]) -> None:
    """All of it on a few photographs: propose, pretrain, export, load, and a page that shows what happened."""

    def arguments(
        images: Path | None = None, output: Path = Path("demo"), overwrite: bool = False, seed: int = 0
    ) -> Any:
        """All of it on a few photographs: propose, pretrain, export, load, and a page that shows what happened.

        Args:
            images: Folder of images; by default the photographs that come with the package.
            output: Folder for everything it makes.
            overwrite: Throw away an earlier demo in that folder.
            seed: Of the run.
        """
        from socodet.demonstration import demo

        return demo(images, output, overwrite=overwrite, seed=seed)

    print(_call(arguments, "demo", argv))


def pack(argv: Sequence[str]) -> None:
    """Make pictures small once, into tar shards that are read in sequence."""
    import socodet.images.pack as packing

    def arguments(
        images: tyro.conf.Positional[Path],
        output: Path,
        settings: Annotated[packing.PackSettings, Flat] = packing.PackSettings(),  # noqa: B008
        workers: int | None = None,
        overwrite: bool = False,
    ) -> packing.PackSummary:
        """Make pictures small once, into tar shards that are read in sequence.

        Interrupted, the same command goes on where it was.

        Args:
            images: Folder of images, tar shards, a list of images, a COCO file or a saved dataset.
            output: Folder for the shards.
            workers: Images under way at once; by default one a core.
            overwrite: Replace the packed images in the folder.
        """
        return packing.pack(images, output, settings=settings, workers=workers, overwrite=overwrite)

    summary = _call(arguments, "pack", argv)
    print(
        f"{summary.output}: {summary.images} images ({summary.copied} as they were) in {summary.shards} shards, "
        f"{summary.bytes / 1e6:.1f} MB, in {summary.seconds:.1f} s"
    )
    _list_unreadable(summary.unreadable)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    f.__name__: f for f in (propose, pretrain, export, inspect, recipes, demo, pack)
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `socodet`. Exit code 2 and one line for what the user can mend; --debug shows where it arose."""
    # Threads that wait for each other asleep: awake, they keep the cores from the data workers and from whatever
    # else runs there, and a step takes several times as long. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no figure is worth an error where the terminal lacks its sign
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(f"socodet {__version__}")
        return
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"{arguments[0]}: no such command; choose one of {', '.join(COMMANDS)}")
        COMMANDS[arguments[0]](arguments[1:])
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"socodet: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = error.filename or "a file"
        print(
            f"socodet: error: {where}: {error.strerror or error}; check that it can be read or written there, and "
            "that the disk is not full",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        goes_on = arguments[0] in ("propose", "pretrain", "demo", "pack")
        print(f"socodet: interrupted{_goes_on(arguments) if goes_on else ''}", file=sys.stderr)
        raise SystemExit(130) from None


def _usage() -> str:
    lines = [f"  {name:<10} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: socodet COMMAND ...",
            "",
            "Pretrain object detectors without labels (SoCo, NeurIPS 2021).",
            "",
            *lines,
            "",
            "socodet COMMAND --help lists a command's flags; --debug shows the traceback of an error; --version.",
        ]
    )


def _call(function: Callable[..., T], command: str, argv: Sequence[str]) -> T:
    """Parses the flags a function's signature makes and calls it; what does not parse is one InputError."""

    @functools.wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> Callable[[], T]:
        return functools.partial(function, *args, **kwargs)

    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            parsed: Callable[[], T] = tyro.cli(
                deferred, args=list(argv), prog=f"socodet {command}", config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        raise InputError(f"{command}: {_one_line(problem.getvalue())}; see socodet {command} --help") from None
    except ValueError as error:  # a field's own check, in the settings of a room
        raise InputError(f"{command}: {error}; see socodet {command} --help") from None
    return parsed()


def _one_line(box: str) -> str:
    """The message in the parser's box, without its frame (Unicode or ASCII), its help and its line breaks."""
    words: list[str] = []
    for line in box.strip().splitlines()[1:]:
        text = line.strip().strip("│|").strip()
        if text and set(text) <= set("─-╰╯"):  # a rule: below the title without Unicode, below the message
            if words:
                break
        elif text:
            words.append(text)
    return " ".join(" ".join(words).split()).rstrip(".")


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value of a flag, the last where it stands twice, as the parser takes it."""
    value = None
    for index, argument in enumerate(argv):
        if argument == flag and index + 1 < len(argv):
            value = argv[index + 1]
        elif argument.startswith(flag + "="):
            value = argument.removeprefix(flag + "=")
    return value


def _goes_on(argv: Sequence[str]) -> str:
    without = ", without --overwrite," if "--overwrite" in argv else ""
    return f"; the same command{without} goes on from here"


def _printable(text: str) -> str:
    """A file name on one line, whatever it holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _list_unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    if not unreadable:
        return
    print(f"{len(unreadable)} images could not be read and were left out:", file=sys.stderr)
    for key, why in unreadable[:LISTED]:
        print(f"  {_printable(key)}: {why}", file=sys.stderr)
    if len(unreadable) > LISTED:
        print(f"  and {len(unreadable) - LISTED} more", file=sys.stderr)
