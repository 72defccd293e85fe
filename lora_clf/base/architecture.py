"""What this library has to know of a transformers architecture, in one table.

Nothing outside this file asks what a model is: the rest of the library reads an `Architecture`.
Names are dotted paths, relative to the backbone (``blocks``) or to one block (``attention``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from torch import nn


_WHOLE = "original_full"  # BigBird's name for attention to all tokens


@dataclass(frozen=True)
class PostNorm:
    """The parts of a block whose norms stand behind attention and feed-forward, as in BERT; paths in the block.

    Attributes:
        linears: query, key, value, the projection behind the attention, up and down.
        norms: behind the attention, behind the feed-forward part.
    """

    linears: tuple[str, str, str, str, str, str]
    norms: tuple[str, str]


@dataclass(frozen=True)
class Architecture:
    """Where the parts of a backbone are.

    Attributes:
        model_type: transformers' name of the architecture.
        prefix: the backbone's attribute name inside transformers' ``ForSequenceClassification`` class.
        blocks: path of the list of transformer blocks.
        attention: the query, key and value projections of a block (one name where they are fused).
        attention_output: the projection behind the attention.
        feed_forward_output: the linear layer that ends a block's feed-forward part.
        embeddings: what stands before the first block, where it is one module.
        final_norm: the norm behind the last block, where there is one.
        projection: what else stands between the last block and the pooling, where there is something.
        family: the head of ``ForSequenceClassification`` (a name in `lora_clf.base.head`), where we compute it.
        pooling: the default pooling of this architecture.
        causal: whether a token sees only those before it.
        resumable: whether a forward pass can start at a middle block from its input alone.
        transposed: whether its linear layers hold their weight as (in, out).
        part: the part of the loaded model that is the backbone (the encoder of an encoder-decoder).
        post_norm: the parts of a block, where blocks are BERT's.
        pre_norm: the norms before attention and feed-forward, and the feed-forward part, where a block is just these
            and the attention, as GPT-2's and Llama's.
        global_token: whether tokens see a window only, but for those that are named: the first token of a text is, as
            in transformers' own classes, whatever is pooled, so that all adapters of a base share its states.
        sparse: whether transformers computes another attention in long batches than in short ones. Which one a text
            gets would depend on the texts beside it, and on those before: all get the whole attention.
        idle_pooler: whether ``ForSequenceClassification`` holds a pooler that its head does not use.
        fused: whether its attention has PyTorch's fused kernel; its masks are another kind where it has not.
    """

    model_type: str
    prefix: str
    blocks: str
    attention: tuple[str, ...]
    attention_output: tuple[str, ...]
    feed_forward_output: str
    embeddings: str | None = None
    final_norm: str | None = None
    projection: str | None = None
    family: str | None = None
    pooling: str = "mean"
    causal: bool = False
    resumable: bool = True
    transposed: bool = False
    part: str | None = None
    post_norm: PostNorm | None = None
    pre_norm: tuple[str, str, str] | None = None
    global_token: bool = False
    sparse: bool = False
    fused: bool = True
    idle_pooler: bool = False

    def block_list(self, backbone: nn.Module) -> nn.ModuleList:
        """The transformer blocks of ``backbone``, first to last."""
        return backbone.get_submodule(self.blocks)  # type: ignore[return-value]

    def settle(self, backbone: nn.Module) -> None:
        """Take away what makes a text's states depend on the batch that it is in."""
        if self.sparse:
            backbone.set_attention_type(_WHOLE)  # type: ignore[operator]

    def settle_config(self, config: Any) -> None:
        """The same in the config of a model that is written for others."""
        if self.sparse:
            config.attention_type = _WHOLE


_SELF = ("attention.self.query", "attention.self.key", "attention.self.value")


def _bert(model_type: str, family: str) -> Architecture:
    return Architecture(
        model_type=model_type,
        prefix=model_type,
        blocks="encoder.layer",
        attention=_SELF,
        attention_output=("attention.output.dense",),
        feed_forward_output="output.dense",
        embeddings="embeddings",
        family=family,
        post_norm=PostNorm(
            linears=(*_SELF, "attention.output.dense", "intermediate.dense", "output.dense"),
            norms=("attention.output.LayerNorm", "output.LayerNorm"),
        ),
    )


def _llama(model_type: str, *, plain: bool = True) -> Architecture:
    return Architecture(
        model_type=model_type,
        prefix="model",
        blocks="layers",
        attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output=("self_attn.o_proj",),
        feed_forward_output="mlp.down_proj",
        final_norm="norm",
        family="score",
        pooling="family",
        causal=True,
        pre_norm=("input_layernorm", "post_attention_layernorm", "mlp") if plain else None,
    )


_TABLE = (
    Architecture(
        model_type="gpt2",
        prefix="transformer",
        blocks="h",
        attention=("attn.c_attn",),
        attention_output=("attn.c_proj",),
        feed_forward_output="mlp.c_proj",
        final_norm="ln_f",
        family="score",
        pooling="family",
        causal=True,
        pre_norm=("ln_1", "ln_2", "mlp"),
        transposed=True,
    ),
    _bert("bert", family="pooler"),
    _bert("roberta", family="roberta"),
    Architecture(
        model_type="distilbert",
        prefix="distilbert",
        blocks="transformer.layer",
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        attention_output=("attention.out_lin",),
        feed_forward_output="ffn.lin2",
        embeddings="embeddings",
        family="distilbert",
        post_norm=PostNorm(
            linears=(
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "ffn.lin1",
                "ffn.lin2",
            ),
            norms=("sa_layer_norm", "output_layer_norm"),
        ),
    ),
    *(_llama(name) for name in ("llama", "mistral", "qwen2")),
    _llama("qwen3", plain=False),  # norms on query and key
    Architecture(
        model_type="gpt_neox",
        prefix="gpt_neox",
        blocks="layers",
        attention=("attention.query_key_value",),
        attention_output=("attention.dense",),
        feed_forward_output="mlp.dense_4h_to_h",
        final_norm="final_layer_norm",
        family="score",
        pooling="family",
        causal=True,
    ),
    Architecture(
        model_type="modernbert",
        prefix="model",
        blocks="layers",
        attention=("attn.Wqkv",),
        attention_output=("attn.Wo",),
        feed_forward_output="mlp.Wo",
        embeddings="embeddings",
        final_norm="final_norm",
        family="modernbert",
    ),
    Architecture(
        model_type="longformer",
        prefix="longformer",
        blocks="encoder.layer",
        attention=(*_SELF, *(f"{name}_global" for name in _SELF)),
        attention_output=("attention.output.dense",),
        feed_forward_output="output.dense",
        embeddings="embeddings",
        family="roberta",
        # The model pads a batch to whole windows before its first block.
        resumable=False,
        global_token=True,
        fused=False,
    ),
    Architecture(
        model_type="big_bird",
        prefix="bert",
        blocks="encoder.layer",
        attention=_SELF,
        attention_output=("attention.output.dense",),
        feed_forward_output="output.dense",
        embeddings="embeddings",
        family="big_bird",
        sparse=True,
        idle_pooler=True,
        fused=False,
    ),
    Architecture(
        model_type="opt",
        prefix="model",
        blocks="decoder.layers",
        attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output=("self_attn.out_proj",),
        feed_forward_output="fc2",
        final_norm="decoder.final_layer_norm",
        projection="decoder.project_out",
        family="score",
        pooling="family",
        causal=True,
    ),
    Architecture(
        model_type="t5",
        prefix="encoder",
        blocks="block",
        attention=("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"),
        attention_output=("layer.0.SelfAttention.o",),
        feed_forward_output="layer.1.DenseReluDense.wo",
        final_norm="final_layer_norm",
        # The relative position bias is made in the first block and handed on from block to block.
        resumable=False,
        part="encoder",
    ),
    Architecture(
        model_type="bart",
        prefix="encoder",
        blocks="layers",
        attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output=("self_attn.out_proj",),
        feed_forward_output="fc2",
        part="encoder",
    ),
)

ARCHITECTURES: dict[str, Architecture] = {entry.model_type: entry for entry in _TABLE}


def architecture_of(config: Any) -> Architecture:
    """The architecture of a transformers ``config``.

    Raises:
        UnsupportedBaseError: it is not in the table; the message lists those that are.
    """
    model_type = str(getattr(config, "model_type", None))
    if model_type not in ARCHITECTURES:
        raise UnsupportedBaseError(
            f"The base is of type {model_type!r}, which this version does not know. "
            f"It knows: {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[model_type]
