"""From an image to object boxes, without labels: selective search, filters, the table they are kept in."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socodet.proposals.conversion import ConversionSummary as ConversionSummary
    from socodet.proposals.conversion import convert_proposals as convert_proposals
    from socodet.proposals.image_boxes import propose_boxes as propose_boxes
    from socodet.proposals.offline import ProposalSummary as ProposalSummary
    from socodet.proposals.offline import propose as propose
    from socodet.proposals.settings import ProposalSettings as ProposalSettings
    from socodet.proposals.shares import Share as Share
    from socodet.proposals.shares import ShareSummary as ShareSummary
    from socodet.proposals.shares import merge_shares as merge_shares
    from socodet.proposals.shares import propose_share as propose_share
    from socodet.proposals.shares import propose_together as propose_together
    from socodet.proposals.table import ProposalTable as ProposalTable

# Imported at first use: settings and tables then cost no Numba.
_ORIGINS = {
    "ConversionSummary": "socodet.proposals.conversion",
    "ProposalSettings": "socodet.proposals.settings",
    "ProposalSummary": "socodet.proposals.offline",
    "ProposalTable": "socodet.proposals.table",
    "Share": "socodet.proposals.shares",
    "ShareSummary": "socodet.proposals.shares",
    "convert_proposals": "socodet.proposals.conversion",
    "merge_shares": "socodet.proposals.shares",
    "propose": "socodet.proposals.offline",
    "propose_boxes": "socodet.proposals.image_boxes",
    "propose_share": "socodet.proposals.shares",
    "propose_together": "socodet.proposals.shares",
}
__all__ = [*_ORIGINS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module 'socodet.proposals' has no attribute {name!r}")
    return getattr(importlib.import_module(_ORIGINS[name]), name)
