"""From an image to object boxes, without labels: selective search, filters, the table they are kept in."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socodet.proposals.image_boxes import propose_boxes as propose_boxes
    from socodet.proposals.offline import ProposalSummary as ProposalSummary
    from socodet.proposals.offline import propose as propose
    from socodet.proposals.settings import ProposalSettings as ProposalSettings
    from socodet.proposals.table import ProposalTable as ProposalTable

# Imported at first use: settings and tables then cost no Numba.
_ORIGINS = {
    "ProposalSettings": "socodet.proposals.settings",
    "ProposalSummary": "socodet.proposals.offline",
    "ProposalTable": "socodet.proposals.table",
    "propose": "socodet.proposals.offline",
    "propose_boxes": "socodet.proposals.image_boxes",
}
__all__ = [*_ORIGINS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module 'socodet.proposals' has no attribute {name!r}")
    return getattr(importlib.import_module(_ORIGINS[name]), name)
