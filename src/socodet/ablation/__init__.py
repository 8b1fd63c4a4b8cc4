"""The paper's ablation tables at any budget: each row a run, all of them on the same images and proposals."""

from socodet.ablation.budget import FAMILIES, Budget, Family
from socodet.ablation.finetuning import DetectorTransfer, FinetuneSettings, Transfer, Transferred
from socodet.ablation.running import run_ablation
from socodet.ablation.table import AblationRow, AblationTable

__all__ = [
    "FAMILIES",
    "AblationRow",
    "AblationTable",
    "Budget",
    "DetectorTransfer",
    "Family",
    "FinetuneSettings",
    "Transfer",
    "Transferred",
    "run_ablation",
]
