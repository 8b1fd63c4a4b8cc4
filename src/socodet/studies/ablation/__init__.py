"""The paper's ablation tables at any budget: one run per row, all on the same images and proposals."""

from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from socodet.studies.ablation.budget import FAMILIES as FAMILIES
    from socodet.studies.ablation.budget import Budget as Budget
    from socodet.studies.ablation.budget import Family as Family
    from socodet.studies.ablation.running import ablate as ablate
    from socodet.studies.ablation.running import row_detectors as row_detectors
    from socodet.studies.ablation.table import AblationRow as AblationRow
    from socodet.studies.ablation.table import AblationTable as AblationTable

__getattr__ = lazy_getattr(__name__)
