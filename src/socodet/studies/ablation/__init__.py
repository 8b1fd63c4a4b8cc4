"""The paper's ablation tables at any budget: each row a run, all of them on the same images and proposals."""

from socodet.studies.ablation.budget import FAMILIES, Budget, Family
from socodet.studies.ablation.running import row_detectors, run_ablation
from socodet.studies.ablation.table import AblationRow, AblationTable

__all__ = ["FAMILIES", "AblationRow", "AblationTable", "Budget", "Family", "row_detectors", "run_ablation"]
