"""Pretrain object detectors without labels: object-level contrastive learning (SoCo, NeurIPS 2021).

    import socodet

    socodet.propose("images/", "proposals.parquet")
    socodet.pretrain("images/", "tiny", "runs/first")
    detector = socodet.build_detector("runs/first", num_classes=21)  # for a loop of your own
    socodet.finetune("labelled/", "runs/det", init="runs/first")  # or with the built-in loop
    socodet.predict("runs/det", "new_images/", "found")

Each function does what the command of the same name does, with the same arguments: see `help(socodet.pretrain)`. Notes
and progress go to the logger `socodet`.
"""

from typing import TYPE_CHECKING

from socodet._version import __version__
from socodet.runtime.lazy import lazy_getattr, lazy_names
from socodet.runtime.log import LOGGER as _LOGGER  # noqa: F401  from here on, what a program sets of it is kept

if TYPE_CHECKING:  # each of these is a public name
    from socodet.commands.doctor import examine as doctor
    from socodet.deployment.export import export as export
    from socodet.deployment.export import export_detector as export_detector
    from socodet.deployment.push import Pushed as Pushed
    from socodet.deployment.push import push as push
    from socodet.detection.build import build_detector as build_detector
    from socodet.detection.convert import Conversion as Conversion
    from socodet.detection.convert import convert as convert
    from socodet.detection.datasets.layouts import open_detection_set as open_detection_set
    from socodet.detection.datasets.reading import ReadingSettings as ReadingSettings
    from socodet.detection.detectors.by_name import new_detector as new_detector
    from socodet.detection.detectors.detector import Detector as Detector
    from socodet.errors import InputError as InputError
    from socodet.exporting import Exported as Exported
    from socodet.finetuning.detector import TrainedDetector as TrainedDetector
    from socodet.finetuning.detector import load_detector as load_detector
    from socodet.finetuning.evaluate import Evaluation as Evaluation
    from socodet.finetuning.evaluate import evaluate as evaluate
    from socodet.finetuning.finetune import FinetuneResult as FinetuneResult
    from socodet.finetuning.finetune import finetune as finetune
    from socodet.finetuning.head_scale import match_head_scale as match_head_scale
    from socodet.finetuning.settings import EvaluationSettings as EvaluationSettings
    from socodet.finetuning.settings import FinetuneSettings as FinetuneSettings
    from socodet.images.pack import PackSettings as PackSettings
    from socodet.images.pack import PackSummary as PackSummary
    from socodet.images.pack import pack as pack
    from socodet.images.photographs import photographs as photographs
    from socodet.images.reading import PixelSettings as PixelSettings
    from socodet.images.reading import read_images_as as read_images_as
    from socodet.images.source import open_images as open_images
    from socodet.models.objective import Embeddings as Embeddings
    from socodet.models.objective import Objective as Objective
    from socodet.models.settings import ModelSettings as ModelSettings
    from socodet.models.soco import build_soco as build_soco
    from socodet.prediction.predict import predict as predict
    from socodet.prediction.result import PredictResult as PredictResult
    from socodet.pretraining.data import SampleDataset as SampleDataset
    from socodet.pretraining.pretrain import PretrainResult as PretrainResult
    from socodet.pretraining.pretrain import pretrain as pretrain
    from socodet.pretraining.recipes import Recipe as Recipe
    from socodet.pretraining.recipes import recipe as recipe
    from socodet.pretraining.recipes import recipes as recipes
    from socodet.probing.probe import ProbeResult as ProbeResult
    from socodet.probing.probe import probe as probe
    from socodet.probing.settings import ProbeData as ProbeData
    from socodet.probing.settings import ProbeSettings as ProbeSettings
    from socodet.proposals.image_boxes import OnlineProposals as OnlineProposals
    from socodet.proposals.make_table import ProposalSummary as ProposalSummary
    from socodet.proposals.make_table import propose as propose
    from socodet.proposals.settings import ProposalSettings as ProposalSettings
    from socodet.reports.demo import demo as demo
    from socodet.reports.inspect import inspect as inspect
    from socodet.reports.inspect_detections import inspect_detections as inspect_detections
    from socodet.reports.report import ReportResult as ReportResult
    from socodet.reports.report import report as report
    from socodet.runtime.extensions import register as register
    from socodet.studies.ablation.budget import Budget as Budget
    from socodet.studies.ablation.running import ablate as ablate
    from socodet.studies.ablation.running import row_detectors as row_detectors
    from socodet.studies.ablation.table import AblationTable as AblationTable
    from socodet.studies.comparison import Comparison as Comparison
    from socodet.studies.comparison import compare as compare
    from socodet.studies.inits import Init as Init
    from socodet.studies.own_data.protocol import OwnDataSettings as OwnDataSettings
    from socodet.studies.own_data.protocol import Weights as Weights
    from socodet.studies.own_data.results import OwnData as OwnData
    from socodet.studies.own_data.running import reproduce_own_data as reproduce_own_data
    from socodet.training.learner import DivergedError as DivergedError
    from socodet.training.settings import DeviceSettings as DeviceSettings
    from socodet.training.settings import ExecutionSettings as ExecutionSettings
    from socodet.views.batch import collate as collate
    from socodet.weights.load import load_pretrained as load_pretrained
    from socodet.weights.report import LoadReport as LoadReport

__all__ = ["__version__", *lazy_names(__name__)]  # pyright: ignore[reportUnsupportedDunderAll]
if TYPE_CHECKING:  # to type checkers, an import under another name is private
    __all__ += ["doctor"]
__getattr__ = lazy_getattr(__name__, check_arguments=True)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name != "__version__")])
