"""Finds and downloads runs and weights on the Hugging Face Hub, named `hub:USER/NAME` or `hub:USER/NAME@REVISION`.

Only safetensors and JSON are downloaded, into the Hub's own cache, and then read like local files. torch and
huggingface_hub are imported only where they are used.
"""

import functools
import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from socodet.errors import InputError

HUB = "hub:"
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_WORD = re.compile(rf"(?P<before>(--[\w.-]+=)?([\w.-]+=)?)(?P<name>{HUB}.*)", re.DOTALL)
LONGEST_REASON = 200
"""Maximum length of the Hub's complaint about a card, which may list every licence that exists."""
_names: dict[Path, str] = {}
"""The Hub name of each path that this process downloaded."""

P = ParamSpec("P")
R = TypeVar("R")


def import_hub(purpose: str) -> Any:
    """The package huggingface_hub. If it is not installed, InputError says what needs it (`purpose`)."""
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{purpose}: needs huggingface_hub, which is not installed; pip install 'socodet[hub]'"
        ) from None
    return huggingface_hub


def is_on_hub(source: object) -> bool:
    """Whether `source` names something on the Hub."""
    return isinstance(source, str | Path) and str(source).startswith(HUB)


def download(source: str | Path) -> Path:
    """The local path of a run, a transformers model or a file of weights on the Hub, downloaded unless it is cached.

    InputError if it cannot be downloaded, or is none of these.
    """
    path = _download(source)
    _names[path] = str(source)
    return path


def origin(source: str | Path) -> str:
    """What a run records about its initial weights: the Hub name of a download, otherwise the absolute path."""
    return _names.get(Path(source)) or os.path.realpath(source)


def _download(source: str | Path) -> Path:
    found = _NAME.fullmatch(str(source).removeprefix(HUB))
    if found is None:
        raise InputError(f"{source}: is not a name on the Hub; write hub:USER/NAME or hub:USER/NAME@REVISION")
    hub = import_hub(str(source))
    with hub_errors(str(source)):
        folder = Path(
            hub.snapshot_download(
                found["repository"],
                revision=found["revision"],
                allow_patterns=["*.json", "*.jsonl", "*.safetensors"],
                ignore_patterns=["*/*"],  # the pattern * also matches in folders, which hold other variants
            )
        )
        if (folder / "run.json").is_file():
            hub.snapshot_download(
                found["repository"],
                revision=folder.name,  # the commit that was found
                allow_patterns=["checkpoints/*.safetensors"],
                ignore_patterns=["checkpoints/*/*"],
            )
            return folder
    files = sorted(folder.glob("*.safetensors"))
    if files and (folder / "config.json").is_file() and not _is_timms(folder):
        return folder
    if len(files) == 1:
        return files[0]
    raise InputError(
        f"{source}: is neither a run that `socodet push` wrote nor a single safetensors file; other formats can "
        "hold code: download those yourself"
    )


def _is_timms(folder: Path) -> bool:
    """Whether the configuration is that of a timm network, whose weights are one file."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "architecture" in config and "model_type" not in config


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns the Hub's errors into one line each: no such repository, no access, no network."""
    from huggingface_hub import errors

    unresolved = getattr(errors, "RevisionResolutionError", errors.EntryNotFoundError)  # since 2.0
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{what}: its owner grants access on request; request it on its page, and run `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{what}: no such repository, or a private one; check the name, and for a private one run `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{what}: there is no such revision; give a branch, a tag or a commit of it") from None
    except errors.LocalTokenNotFoundError:
        raise InputError(f"{what}: there is no token; run `hf auth login`, or set HF_TOKEN") from None
    except errors.OfflineModeIsEnabled:
        raise InputError(f"{what}: HF_HUB_OFFLINE is set; unset it") from None
    except errors.LocalEntryNotFoundError as error:
        if _is_offline():
            raise InputError(f"{what}: was not downloaded yet, and HF_HUB_OFFLINE is set; unset it once") from None
        raise InputError(f"{what}: the Hub cannot be reached ({_reason(error)}); check the network") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        fix = "log in with a token that may do this (`hf auth login`)" if status in (401, 403) else "try again later"
        raise InputError(f"{what}: the Hub answered {status}; {fix}") from None
    except (errors.HFValidationError, errors.EntryNotFoundError, unresolved) as error:
        raise InputError(f"{what}: {' '.join(str(error).split())}") from None
    except json.JSONDecodeError:
        raise InputError(
            f"{what}: the answer is not one of the Hub's; check the network (a proxy?), or try again later"
        ) from None
    except ValueError as error:
        if not isinstance(error.__cause__, errors.BadRequestError):
            raise
        reason = textwrap.shorten(str(error).partition("\n")[2] or str(error), LONGEST_REASON, placeholder=" …")
        raise InputError(
            f"{what}: nothing was uploaded, because the Hub does not accept the card ({reason}); correct --license or "
            "--datasets"
        ) from None
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise  # an error of the disk, not the network
        raise InputError(f"{what}: the Hub cannot be reached ({_reason(error)}); check the network") from None
    except Exception as error:
        if "http" not in type(error).__module__:  # otherwise an error of its HTTP client, such as a refused connection
            raise
        raise InputError(f"{what}: the Hub cannot be reached ({_reason(error)}); check the network") from None


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split()).partition(". ")[0] or type(cause).__name__


def reads_hub(*parameters: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function so that these arguments, or the items of a list, may name runs or weights on the Hub."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def reading(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind_partial(*args, **kwargs)
            for name in parameters:
                if name in given.arguments:
                    given.arguments[name] = _local(given.arguments[name])
            return function(*given.args, **given.kwargs)

        return reading

    return decorate


def _local(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_local(one) for one in value]
    return download(value) if is_on_hub(value) else value


def with_downloads(argv: Sequence[str]) -> list[str]:
    """A command line with Hub names replaced by downloaded paths; initial weights keep the repository's name."""
    found = []
    for word, before in zip(argv, ["", *argv], strict=False):
        match = _WORD.fullmatch(word)
        if match is None:
            found.append(word)
            continue
        if "--output" in (before, match["before"].rstrip("=")):
            raise InputError(
                f"--output {match['name']}: runs are written to a folder; socodet push puts one on the Hub"
            )
        unnamed = match["before"] == "--init=" or (before == "--init" and not match["before"])
        title = f"{match['name'].partition('@')[0].rpartition('/')[2]}=" if unnamed else ""
        found.append(f"{match['before']}{title}{download(match['name'])}")
    return found
