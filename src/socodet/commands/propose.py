"""`socodet propose`: from images to a proposal table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from socodet.commands.messages import list_unreadable
from socodet.commands.parsing import Flat, reads_images
from socodet.errors import InputError, none_readable
from socodet.proposals.settings import BoxForm, ProposalSettings
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import printable
from socodet.runtime.world import world_from_environment

if TYPE_CHECKING:
    from socodet.proposals.make_table import ProposalSummary


@reads_images
def propose(
    images: tyro.conf.Positional[Path],
    output: Path,
    settings: Annotated[ProposalSettings, Flat] = ProposalSettings(),
    workers: int | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    merge: bool = False,
    elsewhere: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    coco_images: Path | None = None,
    box_form: BoxForm | None = None,
    keep_all: bool = False,
) -> Any:
    """Run selective search on every image below a folder, and write a proposal table.

    If interrupted, the same command resumes. Under torchrun or srun, each process makes its share and the first one
    merges them. In a job array, use --shard and then --merge.

    Args:
        images: Folder of images, nested or not; pattern such as '*.jpg', list of paths, COCO file, tar shards, or saved
            Hugging Face dataset.
        output: Proposal table to write (.parquet).
        workers: Number of images processed at once; by default one per core.
        overwrite: Replace an existing table.
        shard: i/n, such as 2/8: make the second of eight shares and store it beside the output for --merge.
        merge: Merge the shares that --shard made for the same images and settings.
        elsewhere: Import proposals made elsewhere: JSON of image stems and xywh boxes, COCO results or annotations,
            Parquet, or a folder of .npy files (xyxy).
        coco_images: COCO file that maps image_id to images, for COCO results.
        box_form: Meaning of a box's four numbers, if it is not the usual one for that format.
        keep_all: Do not filter the imported boxes.
    """
    from socodet.proposals.conversion import convert_proposals
    from socodet.proposals.shares import Share, merge_shares, propose_share, propose_together

    world = world_from_environment(rendezvous=False)
    if output.suffix not in ("", ".parquet"):
        raise InputError(f"{output}: a proposal table is a Parquet file; end its name in .parquet")
    if (shard is not None) + merge + (elsewhere is not None) > 1:
        raise InputError("propose: --shard, --merge and --from cannot be combined; give one of them")
    if world.size > 1 and (shard is not None or merge or elsewhere is not None):
        raise InputError(
            f"propose: --shard, --merge and --from need a single process, not {world.size}; leave them out (the "
            "processes share the work by themselves), or start one process"
        )
    usual, other = ProposalSettings(), "without" if elsewhere is None else "with"
    for flag, idle in (
        ("--coco-images", elsewhere is None and coco_images is not None),
        ("--box-form", elsewhere is None and box_form is not None),
        ("--keep-all", elsewhere is None and keep_all),
        ("--method", elsewhere is not None and settings.method != usual.method),
        ("--work-size", elsewhere is not None and settings.work_size != usual.work_size),
        ("--seed", elsewhere is not None and settings.seed != usual.seed),
    ):
        if idle:
            raise InputError(f"propose: {flag} has no effect {other} --from")
    if shard is not None:
        part = propose_share(
            images, output, Share.parse(shard), settings=settings, workers=workers, overwrite=overwrite
        )
        print(f"shard {part.share}: {part.images} images in {part.seconds:.1f} s; merge all with --merge")
        return part
    summary: ProposalSummary | None
    if elsewhere is not None:
        summary = convert_proposals(
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
    elif merge:
        summary = merge_shares(images, output, settings=settings, overwrite=overwrite)
    else:
        summary = propose_together(images, output, world, settings=settings, workers=workers, overwrite=overwrite)
    if summary is not None:  # otherwise another process prints
        _print_summary(summary)
    return summary


def _print_summary(summary: "ProposalSummary") -> None:
    if summary.images == len(summary.unreadable):
        raise none_readable(f"{summary.table}: written, but none of its {summary.images} images", summary.unreadable[0])
    print(summary)
    unknown = getattr(summary, "unknown", ())  # only for boxes made elsewhere
    if unknown:
        LOGGER.warning(f"{len(unknown)} names match no image and were left out, first {printable(unknown[0])}")
    list_unreadable(summary.unreadable)
