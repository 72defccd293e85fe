"""A base folder's config.json and safetensors weights, read by transformers, which is kept quiet meanwhile.

What transformers raises over a damaged file or an odd config has no common root and often many lines; here it
becomes one line that says which file it is about and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.base.architecture import Architecture
from lora_clf.errors import BaseError, UnsupportedBaseError

if TYPE_CHECKING:
    from torch import nn

_ADAPTER = "adapter_config.json"  # where there is one transformers loads that adapter into the weights, unasked
# From this disk alone, no pickle, and told what did not fit.
_READING = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
_REASON = 300  # characters; transformers' own explanations can be longer than a screen


def read_config(folder: Path, name: str) -> Any:
    """The transformers config of a base folder; ``name`` is what messages call the base.

    Raises:
        UnsupportedBaseError: config.json is none, or not one that its architecture takes.
    """
    from transformers import AutoConfig

    with quiet():
        try:
            # What the config says about the kind of output is not for us: our own code reads it.
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, return_dict=True)
        # Strict dataclasses, JSON and each architecture's own checks: their errors have no common root.
        except Exception as error:
            raise _odd_config(folder, name, error) from error


def read_backbone(folder: Path, config: Any, architecture: Architecture, name: str) -> nn.Module:
    """The frozen backbone of a base folder in evaluation mode; ``name`` is what messages call the base.

    Raises:
        BaseError: the weights are damaged, incomplete, or of other shapes than config.json says.
        UnsupportedBaseError: no model can be built from config.json, or an adapter stands in the folder.
    """
    return backbone_of(read_model(folder, config, architecture, name), architecture)


def backbone_of(model: Any, architecture: Architecture) -> nn.Module:
    """The part of a model from `read_model` that is the backbone, frozen and in evaluation mode."""
    backbone: nn.Module = getattr(model, architecture.part) if architecture.part else model
    return backbone.eval().requires_grad_(False)


def read_model(folder: Path, config: Any, architecture: Architecture, name: str) -> Any:
    """All that stands in a base folder, without a head: of BART the decoder too.

    Raises:
        BaseError, UnsupportedBaseError: as `read_backbone`.
    """
    import torch
    from transformers import AutoModel, T5EncoderModel

    _check_no_adapter(folder, name)
    t5 = architecture.model_type == "t5"
    loader: Any = T5EncoderModel if t5 else AutoModel
    extra = {"add_pooling_layer": False} if architecture.model_type in ("roberta", "longformer") else {}
    with quiet():
        try:
            model, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                **_READING,
                ignore_mismatched_sizes=True,  # They are named below.
                **extra,
            )
        except Exception as error:
            build = (lambda: T5EncoderModel(config)) if t5 else (lambda: AutoModel.from_config(config, **extra))
            raise _damage(folder, config, name, build, error) from error
    if report["mismatched_keys"]:
        tensor, found, expected = min(report["mismatched_keys"])
        raise BaseError(
            f"The weights of base {name!r} do not fit its config.json: {tensor} is {_shape(found)} and should be "
            f"{_shape(expected)} ({len(report['mismatched_keys'])} such). Check config.json, or fetch the base again."
        )
    missing = sorted(report["missing_keys"])
    if missing and all("pooler." in tensor for tensor in missing):
        # A BERT saved without its pooler: transformers would invent one at random.
        model.pooler = None
        missing = []
    if missing:
        raise BaseError(
            f"The weights of base {name!r} are incomplete: {len(missing)} missing, "
            f"first {', '.join(missing[:3])}. Check config.json, or fetch the base again."
        )
    return model


def read_language_model(folder: Path, config: Any, name: str) -> nn.Module | None:
    """The decoder of a base folder with the head that it was pretrained with; None where the folder has no such head.

    A head that is tied to the embeddings is always there.

    Raises:
        BaseError: the weights cannot be read.
        UnsupportedBaseError: an adapter stands in the folder.
    """
    import torch
    from transformers import AutoModelForCausalLM

    _check_no_adapter(folder, name)
    loader: Any = AutoModelForCausalLM
    with quiet():
        try:
            model, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                **_READING,
            )
        except Exception as error:
            reason = _reason(error, folder)
            raise BaseError(f"The language model of base {name!r} cannot be read: {reason}.") from error
    if report["missing_keys"]:  # transformers would invent it at random
        return None
    found: nn.Module = model.eval().requires_grad_(False)
    return found


def _check_no_adapter(folder: Path, name: str) -> None:
    if (folder / _ADAPTER).is_file():
        raise UnsupportedBaseError(
            f"The folder of base {name!r} holds an adapter too ({_ADAPTER}), which transformers would load into it. "
            "Move the adapter's files into a folder of their own and load it from there on this base, or merge it."
        )


def _damage(folder: Path, config: Any, name: str, build: Callable[[], Any], error: Exception) -> BaseError:
    """What is wrong with a folder that did not load: one of its files, its config.json, or something else."""
    import torch
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                tensors.keys()
        except Exception as damaged:
            reason = _reason(damaged, folder)
            return BaseError(f"The {file.name} of base {name!r} is damaged: {reason}. Fetch the base again.")
    try:
        with torch.device("meta"):  # As large as it may be, it takes no memory.
            build()
    except KeyError as odd:  # A name (of an activation) that transformers has no entry for.
        named = [field for field, value in config.to_dict().items() if value in odd.args] or ["something"]
        return _odd_config(folder, name, ValueError(f"{' and '.join(named)} is {odd}, which transformers lacks"))
    except Exception as odd:
        return _odd_config(folder, name, odd)
    return BaseError(f"The weights of base {name!r} cannot be read: {_reason(error, folder)}. Fetch the base again.")


def _odd_config(folder: Path, name: str, error: Exception) -> UnsupportedBaseError:
    return UnsupportedBaseError(
        f"The config.json of base {name!r} cannot be used: {_reason(error, folder)}. Check it, or fetch the base again."
    )


def _reason(error: Exception, folder: Path) -> str:
    """The first line of an error, and the next where that only announces it; without where the folder is."""
    text = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "the folder")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if isinstance(error, KeyError) or not reason:
        reason = f"{type(error).__name__} {reason}".strip()
    return reason.rstrip(".")[:_REASON]


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape) or "a single number"


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars and its load report, and afterwards as it was."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(50)  # critical, so nothing
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
