"""The digest of a base: what tells two bases apart that have the same shape.

It covers the bytes of every tensor that takes part in the computation, and the settings of config.json that
change the computation without showing in a tensor's shape. It does not see how the base is stored: sharding,
the folder's name, the order of the tensors, fields at their default and fields about dropout, initialisation,
labels, generation or caching.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

import torch

from lora_clf.errors import UnsupportedBaseError

# What of a config changes the computation, and the value that stands for "as always": a field that is
# absent, null or at that value is left out, so that configs of different ages give the same digest. Sizes
# that show in a tensor's shape (vocabulary, positions, feed-forward width) need no entry, nor do switches that
# add or remove tensors (biases, gates, norms). A new entry must name as its default what the architectures did
# before there was such a field, or every digest changes. tests/base/test_every_field.py finds what is missing.
SETTINGS: Final[Mapping[str, Any]] = {
    "model_type": None,
    # sizes and heads
    "hidden_size": None,
    "n_embd": None,
    "dim": None,
    "d_model": None,
    "num_hidden_layers": None,
    "n_layer": None,
    "n_layers": None,
    "num_layers": None,
    "encoder_layers": None,
    "num_attention_heads": None,
    "n_head": None,
    "n_heads": None,
    "num_heads": None,
    "encoder_attention_heads": None,
    "num_key_value_heads": None,
    "head_dim": None,
    "d_kv": None,
    # activation
    "hidden_act": None,
    "hidden_activation": None,
    "activation": None,
    "activation_function": None,
    "dense_act_fn": None,
    # norms
    "layer_norm_eps": None,
    "layer_norm_epsilon": None,
    "rms_norm_eps": None,
    "norm_eps": None,
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    # attention
    "is_decoder": False,
    "is_causal": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "sliding_window": None,
    "layer_types": None,
    "local_attention": None,
    "attention_window": None,
    "use_parallel_residual": True,
    # positions and embeddings
    "position_embedding_type": "absolute",
    "rope_parameters": None,
    "relative_attention_num_buckets": None,
    "relative_attention_max_distance": None,
    "scale_embedding": False,
    "rescale_embeddings": False,
    # what differs from block to block
    "per_layer_config": None,
    # ModernBERT's family head
    "classifier_pooling": "cls",
    "classifier_activation": "gelu",
    "classifier_bias": False,
}

# In these the position of the first token is the padding id plus one.
_POSITIONS_FROM_PADDING: Final = frozenset({"roberta", "xlm-roberta", "camembert", "longformer"})

# Of these kinds of rotary positions the frequencies depend on how many positions there are.
_ROPE_BY_LENGTH: Final = frozenset({"dynamic", "yarn", "longrope"})

_TAG: Final = b"lora_clf base digest 1\n"


def backbone_digest(state: Iterable[tuple[str, torch.Tensor]], config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a backbone, 64 hexadecimal digits: same weights and settings, same digest.

    Args:
        state: name and tensor of every parameter of the backbone, without the model's prefix, in any order
            and of any dtype; where persistent buffers take part in the computation, those too.
        config: the fields of config.json; those that are absent count as the architecture's defaults.

    Raises:
        UnsupportedBaseError: the config is not one that the architecture of its ``model_type`` takes.
    """
    digest = hashlib.sha256(_TAG)
    digest.update(_json(settings_of(config)))
    seen: str | None = None
    for name, tensor in sorted(state, key=lambda item: item[0]):
        assert name != seen, f"two tensors called {name}"
        seen = name
        digest.update(_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]))
        # As bytes, without a copy where the tensor is contiguous and on the CPU; numpy knows no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a config that change the computation, defaults filled in and left out.

    Raises:
        UnsupportedBaseError: the config is not one that the architecture of its ``model_type`` takes.
    """
    filled = _with_defaults(config)
    settings = {
        name: _plain(filled[name])
        for name, usual in SETTINGS.items()
        if filled.get(name) is not None and filled[name] != usual
    }
    if isinstance(settings.get("attention_window"), int):  # which the model writes out, block by block
        settings["attention_window"] = [settings["attention_window"]] * int(filled["num_hidden_layers"])
    if settings.get("model_type") in _POSITIONS_FROM_PADDING:
        settings["pad_token_id"] = filled.get("pad_token_id")
    if _rope_types(filled.get("rope_parameters")) & _ROPE_BY_LENGTH:
        settings["max_position_embeddings"] = filled.get("max_position_embeddings")
    if set(settings.get("layer_types", ())) <= {"full_attention"}:
        settings.pop("layer_types", None)
    return settings


def _rope_types(parameters: Any) -> set[str]:
    """The kinds of rotary positions in a config's rope_parameters: one, or one a layer type."""
    if not isinstance(parameters, Mapping):
        return set()
    parts = [parameters, *(part for part in parameters.values() if isinstance(part, Mapping))]
    return {str(part["rope_type"]) for part in parts if "rope_type" in part}


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config as its architecture's class reads it: defaults filled in, old spellings renamed."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        return config
    # Whatever the class complains about: its own errors are of many kinds, and none is ours.
    try:
        filled: dict[str, Any] = CONFIG_MAPPING[model_type].from_dict(deepcopy(dict(config))).to_dict()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedBaseError(f"The config is not one of a {model_type} base: {reason}") from error
    return filled


def _plain(value: Any) -> Any:
    """The value as JSON has it, with 10000.0 and 10000 the same number and nulls in mappings left out."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
