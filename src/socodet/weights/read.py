"""Reads pretrained weights under plain names from any source that `file` finds."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from socodet.errors import InputError
from socodet.runtime.extensions import is_extension
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile, state_dict_in
from socodet.weights.formats import BACKBONE, MLPS, in_words, module_of
from socodet.weights.recognition import COMPILED, Format, recognize


@dataclass(frozen=True)
class Pretrained:
    """All tensors of a source of weights."""

    source: str
    format: Format
    tensors: dict[str, Tensor]
    """Tensors by plain name (`formats`)."""
    names: dict[str, str]
    """The source's name for each plain name."""
    others: tuple[str, ...]
    """The source's names of tensors without a plain name, such as a target network's."""
    set_aside: dict[str, str] = field(default_factory=dict)
    """The source's names of tensors that are not wanted, with the module of each."""
    own: dict[str, str] = field(default_factory=dict)
    """The source's names of tensors that only the user's own encoder has, with the module of each."""

    @property
    def modules(self) -> set[str]:
        """The modules of which the source has tensors."""
        return set(map(module_of, self.tensors))

    def encoder_only(self) -> "Pretrained":
        """Only what is transferred to detectors: no MLPs, target network or other tensors (section 4.2)."""
        tensors = {plain: tensor for plain, tensor in self.tensors.items() if module_of(plain) not in MLPS}
        return replace(self, tensors=tensors, others=())

    def backbone_only(self) -> "Pretrained":
        """Only the backbone; the rest of the encoder is set aside."""
        backbone = {plain: tensor for plain, tensor in self.tensors.items() if module_of(plain) == BACKBONE}
        others = {self.names[plain]: module_of(plain) for plain in self.tensors if plain not in backbone}
        return replace(self, tensors=backbone, set_aside=others)

    def left_over(self, taken: Collection[str]) -> dict[str, str]:
        """The source's names of tensors whose plain name is not in `taken`, with descriptions of their modules."""
        known = {self.names[plain]: in_words(plain) for plain in self.tensors if plain not in taken}
        return known | self.own | self.set_aside | {name: self._top(name) for name in self.others}

    def _top(self, name: str) -> str:
        first, second, *_ = f"{name.removeprefix(self.format.prefix).removeprefix('module.')}.".split(".")
        return f"{first}.{second}" if first in ("rpn", "roi_heads", "backbone") else first


def read_pretrained(
    source: str | Path | Mapping[str, Tensor], is_body: Callable[[str], bool], *, only_shapes: bool = False
) -> "Pretrained":
    """Gives plain names to the tensors of a run's folder, a file or a state dict; `is_body` as in `recognize`,
    `only_shapes` as in `WeightsFile.read`.

    Of the user's own encoder (`--architecture module:name`), only the modules that detectors have get plain names.
    InputError if nothing can be read, if any other encoder of a pretraining checkpoint has an unknown tensor, or if a
    tensor holds NaN or infinity.
    """
    if isinstance(source, Mapping):
        place = "the state dict"
        given = state_dict_in(source, place)
    else:
        file = WeightsFile.find(source)
        place, given = str(file.path), file.read(only_shapes=only_shapes)
    weights = {name.replace(COMPILED, ""): tensor for name, tensor in given.items()}
    try:
        found = recognize(weights, is_body)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    plain_names = {name: found.names.to_plain(name) for name in weights}
    names = {plain: name for name, plain in plain_names.items() if plain is not None}
    unknown = [name for name, plain in plain_names.items() if plain is None]
    own = {name: _own_module(name, found) for name in unknown if name.startswith(found.encoder)}
    if own and not _has_own_encoder(source):
        raise InputError(
            f"{place}: {next(iter(own))} is not part of the encoder that this version knows; pretrain again, or remove "
            "it; of an encoder of yours, give the run's folder"
        )
    others = tuple(name for name in unknown if name not in own)
    for name in () if only_shapes else names.values():
        if not bool(weights[name].isfinite().all()):
            raise InputError(f"{place}: {name} holds NaN or infinity: its training diverged; use an earlier checkpoint")
    return Pretrained(place, found, {plain: weights[name] for plain, name in names.items()}, names, others, own=own)


def _own_module(name: str, found: Format) -> str:
    """The module of a tensor of the user's own encoder, as `attention` or `backbone.neck`."""
    start = next(prefix for prefix in found.encoder if name.startswith(prefix))
    first, second, *_ = f"{name.removeprefix(start)}.".split(".")
    return f"{first}.{second}" if first == "backbone" else first


def _has_own_encoder(source: str | Path | Mapping[str, Tensor]) -> bool:
    """Whether the source is a run's folder that names the user's own encoder."""
    if isinstance(source, Mapping) or not (folder := RunFolder(Path(source))).exists():
        return False
    model = folder.describe()["recipe"].get("model")
    return isinstance(model, dict) and is_extension(str(model.get("architecture")))
