"""A tuned view as a plain folder of transformers: of its classification class, or of the backbone alone.

What such a folder must say so that transformers computes what we compute stands here: names of labels, the padding
token, the side of padding and truncation, the names of the weights.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from lora_clf.base.head import ScoreHead, output_layer
from lora_clf.base.hub import WANTED
from lora_clf.base.weights import backbone_of, quiet, read_model
from lora_clf.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.base.view import View

TOKENIZER_FILES: Final = tuple(name for name in WANTED if "safetensors" not in name and name != "config.json")


def write_classifier(
    base: Base,
    view: View,
    folder: Path,
    *,
    labels: Sequence[str],
    max_length: int,
    truncation: str,
    temperature: float = 1.0,
    problem: str = "single_label_classification",
    units: tuple[float, float] | None = None,
) -> bool:
    """Write ``view``, plain weights with a family head, as transformers' classification class into ``folder``.

    Args:
        base: of the view; its tokenizer files are read from its folder.
        view: from `Tuned.merge`.
        folder: there and empty.
        labels: in the order of the logits.
        max_length: tokens a text, for callers who truncate.
        truncation: the side that is cut away then.
        temperature: what the logits are divided by: it goes into the head's last layer.
        problem: transformers' name of the task.
        units: what a logit is multiplied by and what is then added to it; both go into the head's last layer.

    Returns:
        Whether several texts can be run at once: the tokenizer has a token to pad with.

    Raises:
        UnsupportedBaseError: the base has no tokenizer that transformers loads, or the head no bias to add to.
    """
    from transformers import AutoModelForSequenceClassification

    if units is not None and output_layer(view.head).bias is None:
        raise UnsupportedBaseError(
            f"The classification class of {base.architecture.model_type} has no bias, so there is no place for the "
            "mean of the numbers. Use another base, or lora_clf itself."
        )
    config = copy.deepcopy(base.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    base.architecture.settle_config(config)
    config.problem_type = problem
    # Padding on the right: position ids count from the left, so nothing else is needed for them.
    tokenizer = _tokenizer(base, padding_side="right", truncation_side=truncation, model_max_length=max_length)
    _agree_on_padding(tokenizer, config, isinstance(view.head, ScoreHead))
    with quiet():
        with torch.device("meta"):  # Nothing is drawn, and nothing is held twice.
            model = AutoModelForSequenceClassification.from_config(config)
        missing, unexpected = model.load_state_dict(_state(base, view, temperature, units), strict=False, assign=True)
        assert not (missing or unexpected), (missing, unexpected)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return tokenizer.pad_token_id is not None


def _state(base: Base, view: View, temperature: float, units: tuple[float, float] | None) -> dict[str, Tensor]:
    """The weights by their names in the classification class; the last layer divided by the temperature, in units."""
    state = {f"{base.architecture.prefix}.{name}": tensor for name, tensor in view.backbone.state_dict().items()}
    if base.architecture.idle_pooler:  # which the class has and its head does not use
        pooler: Any = base.backbone.pooler
        if pooler is None:
            raise UnsupportedBaseError(
                f"The base {base.name} was saved without the pooler that its classification class has, so there is no "
                "folder for transformers that would load without a warning. Use lora_clf itself, or a base with one."
            )
        state |= {f"{base.architecture.prefix}.pooler.{name}": tensor for name, tensor in pooler.state_dict().items()}
    last = output_layer(view.head)
    divided = {id(parameter) for parameter in last.parameters()} if temperature != 1.0 else set()
    for name, parameter in view.head.named_parameters():
        tensor = parameter.detach()
        state[name] = (tensor.double() / temperature).float() if id(parameter) in divided else tensor
    if units is not None:
        names = {id(parameter): name for name, parameter in view.head.named_parameters()}
        for part, shift in ((last.weight, 0.0), (last.bias, units[1])):
            state[names[id(part)]] = (part.detach().double() * units[0] + shift).float()
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def _tokenizer(base: Base, **settings: Any) -> Any:
    """transformers' tokenizer of the base; only what is set while it is made is saved with it."""
    from transformers import AutoTokenizer

    with quiet():
        try:
            return AutoTokenizer.from_pretrained(
                base.folder, local_files_only=True, trust_remote_code=False, **settings
            )
        # What transformers and its converters may raise has no common root.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnsupportedBaseError(
                f"transformers cannot load the tokenizer of the base {base.name}, which a folder of its own kind "
                f"needs: {reason}"
            ) from error


def ids_of_transformers(base: Base, texts: Sequence[str]) -> list[list[int]] | None:
    """The ids that transformers' tokenizer of the base gives; None where it makes none of the base's files."""
    if base.folder is None:
        return None
    try:
        tokenizer = _tokenizer(base)
    except UnsupportedBaseError:
        return None
    with quiet():  # about texts that are too long
        return [list(ids) for ids in tokenizer(list(texts))["input_ids"]]


def _agree_on_padding(tokenizer: Any, config: Any, by_id: bool) -> None:
    """Give tokenizer and model one padding token.

    Classes that take the last token find it by the padding id (``by_id``), so the config follows the tokenizer; others
    may number positions by it, so the tokenizer follows the config.
    """
    if tokenizer.pad_token is None:
        token = tokenizer.convert_ids_to_tokens(config.pad_token_id) if config.pad_token_id is not None else None
        tokenizer.pad_token = token if isinstance(token, str) and not by_id else tokenizer.eos_token
    if by_id or config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    rows = config.vocab_size
    if config.pad_token_id is not None and config.pad_token_id >= rows:  # added, and the embeddings never grew
        if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= rows:
            raise UnsupportedBaseError(
                f"The base pads with id {config.pad_token_id}, for which it has no embedding (it has {rows:,}). "
                "Give its tokenizer a pad_token that it knows."
            )
        tokenizer.pad_token = tokenizer.eos_token
        config.pad_token_id = tokenizer.eos_token_id


def write_backbone(base: Base, view: View, folder: Path) -> None:
    """Write the backbone of ``view``, plain weights, into ``folder`` so that `load_base` reads it.

    What else transformers' plain class of that base has (a pooler) and the tokenizer go along unchanged. A language
    model's head that is not its embeddings, and T5's decoder, are no part of that class and stay behind.

    Raises:
        BaseError: the base's own folder cannot be read any more.
        UnsupportedBaseError: the base has no folder.
    """
    if base.folder is None:
        raise UnsupportedBaseError(f"The base {base.name} was not loaded from a folder.")
    model = read_model(base.folder, copy.deepcopy(base.config), base.architecture, base.name)
    part = backbone_of(model, base.architecture)
    _, unexpected = part.load_state_dict(view.backbone.state_dict(), strict=False)
    assert not unexpected, unexpected
    with quiet():
        model.save_pretrained(folder)
    for pattern in TOKENIZER_FILES:
        for file in base.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
