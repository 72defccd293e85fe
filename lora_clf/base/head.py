"""Heads: from the pooled vector of a text to its logits.

A *free head* is one linear layer behind mean, first or last pooling. A *family head* computes what the
architecture's ``ForSequenceClassification`` class in transformers computes, under the same parameter names, so
that PEFT and ``pipeline`` read it. Shapes: B batch, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lora_clf.base.architecture import Architecture
from lora_clf.errors import UnsupportedBaseError


def output_width(config: Any) -> int:
    """The width of the backbone's last hidden states (OPT may project its own down)."""
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


class Head(nn.Module):
    """Maps pooled vectors to logits: (B, D) -> (B, C).

    Attributes:
        pooling: how the pooled vector is made: "mean", "first" or "last".
        uses_pooler: whether the backbone's own frozen pooler stands between the pooling and this head.
    """

    uses_pooler: ClassVar[bool] = False
    pooling: str

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Draw the weights: matrices normal with deviation ``std``, norms one, biases zero."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(0.0, std, generator=generator)
                else:
                    parameter.zero_()
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.weight.fill_(1.0)


class FreeHead(Head):
    """One linear layer with a bias behind any pooling."""

    def __init__(self, config: Any, classes: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.linear = nn.Linear(output_width(config), classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.linear(pooled)
        return logits


class VerbalizerHead(Head):
    """The language model's own rows of the labels' words behind the last token, frozen, and a bias a label that trains.

    See `lora_clf.base.verbalizer`. Its rows are no parameters: they are the base's, and are not saved.
    """

    pooling = "last"

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(len(rows)))
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        return nn.functional.linear(pooled, self.rows, self.bias)  # type: ignore[arg-type]


class ScoreHead(Head):
    """GPT-2, GPT-NeoX, OPT, Llama, Qwen: the last token and a linear layer without a bias."""

    pooling = "last"

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(output_width(config), classes, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.score(pooled)
        return logits


class PoolerHead(Head):
    """BERT: the first token, the backbone's frozen pooler and a linear layer."""

    pooling = "first"
    uses_pooler = True

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.classifier(pooled)
        return logits


class _DenseOutput(nn.Module):
    def __init__(self, width: int, classes: int, activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, classes)
        self._activation = activation

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.out_proj(self._activation(self.dense(pooled)))
        return logits


class RobertaHead(Head):
    """RoBERTa, Longformer: the first token, dense, tanh, out_proj."""

    pooling = "first"

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        self.classifier = _DenseOutput(config.hidden_size, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.classifier(pooled)
        return logits


class BigBirdHead(Head):
    """BigBird: the first token, dense, the activation of its blocks, out_proj."""

    pooling = "first"

    def __init__(self, config: Any, classes: int) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.classifier = _DenseOutput(config.hidden_size, classes, ACT2FN[config.hidden_act])

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.classifier(pooled)
        return logits


class DistilBertHead(Head):
    """DistilBERT: the first token, pre_classifier, ReLU, classifier."""

    pooling = "first"

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.classifier(torch.relu(self.pre_classifier(pooled)))
        return logits


class _DenseActivationNorm(nn.Module):
    def __init__(self, config: Any) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, config.classifier_bias)
        self.activation = ACT2FN[config.classifier_activation]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)

    def forward(self, pooled: Tensor) -> Tensor:
        output: Tensor = self.norm(self.activation(self.dense(pooled)))
        return output


class ModernBertHead(Head):
    """ModernBERT: first or mean pooling as its config says, dense, activation, norm, classifier."""

    def __init__(self, config: Any, classes: int) -> None:
        super().__init__()
        self.pooling = "first" if config.classifier_pooling == "cls" else "mean"
        self.head = _DenseActivationNorm(config)
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors: (B, D) -> (B, C)."""
        logits: Tensor = self.classifier(self.head(pooled))
        return logits


_FAMILIES: dict[str, type[ScoreHead | PoolerHead | RobertaHead | BigBirdHead | DistilBertHead | ModernBertHead]] = {
    "score": ScoreHead,
    "pooler": PoolerHead,
    "roberta": RobertaHead,
    "big_bird": BigBirdHead,
    "distilbert": DistilBertHead,
    "modernbert": ModernBertHead,
}


def output_layer(head: Head) -> nn.Linear:
    """The last linear layer of a head, whose outputs are the logits."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


def make_head(architecture: Architecture, config: Any, classes: int, pooling: str, combine: str | None = None) -> Head:
    """The head for ``pooling``: "mean", "first", "last" (free heads) or "family"; over chunks with ``combine``.

    Raises:
        UnsupportedBaseError: the architecture has no family head here (encoder-decoders), or not over chunks.
    """
    if combine is not None:
        from lora_clf.base.combiner import ChunkHead

        if pooling == "family":
            raise UnsupportedBaseError(
                "A family head reads one text at a time; --long hierarchical takes --pooling mean, first or last."
            )
        return ChunkHead(config, classes, pooling, combine)
    if pooling != "family":
        return FreeHead(config, classes, pooling)
    if architecture.family is None:
        raise UnsupportedBaseError(
            f"A {architecture.model_type} base has no family head here: its classification class runs the decoder, "
            f"which is not loaded. Use --pooling mean, first or last."
        )
    return _FAMILIES[architecture.family](config, classes)
