"""The format document is enough: an adapter written from it by another program loads and answers."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.canary import SENTENCES
from lora_clf.adapters.rules import KNOWN
from lora_clf.base.base import Base
from tests.adapters.making import LABELS, shared_base

DOCUMENT = (Path(__file__).parents[2] / "adapters" / "README.md").read_text(encoding="utf-8")
Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def rows_of(heading: str) -> dict[str, list[str]]:
    """The cells of the table under ``heading``, by what stands in code in the first."""
    part = re.split(r"\n#+ ", DOCUMENT.split(f"# {heading}\n", 1)[1])[0]
    found = {}
    for line in part.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                found[name] = cells[1:]
    return found


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def write(folder: Path, header: dict[str, Any], config: dict[str, Any], tensors: Arrays) -> None:
    """What the document says, with json, struct and hashlib."""
    entries: dict[str, Any] = {}
    data, manifest = b"", []
    for name in sorted(tensors):
        part = tensors[name].astype("<f4").tobytes()
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [len(data), len(data) + len(part)],
        }
        manifest.append([name, "F32", list(tensors[name].shape)])
        data += part
    text = canonical({**header, "digest": ""})
    digest = hashlib.sha256(text.encode() + b"\n" + canonical(manifest).encode() + b"\n" + data).hexdigest()
    header = {**header, "digest": digest}
    table = json.dumps({"__metadata__": {"lora_clf": canonical(header)}, **entries}).encode()
    table += b" " * (-len(table) % 8)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(table)) + table + data)
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, **({"digest": digest} if "digest" in config else {})})
    )


def fields(base: Base, logits: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    return {
        "schema": 1, "requires": [], "task": "binary", "labels": list(LABELS), "positive_label": "spam",
        "head": "free", "pooling": "mean", "max_length": 48, "truncation": "right", "base_name": base.name,
        "base_digest": base.digest, "architecture": "bert", "tokenizer_digest": base.tokenizer_digest,
        "scaling": None, "fan_in_fan_out": None, "threshold": 0.5, "temperature": None, "seed": 1,
        "data_name": "Übung", "data_digest": None, "licence": None, "training": {}, "metrics": {"test": {"n": 3}},
        "versions": {"another-program": "3.0"}, "precision": "fp32", "kernels": "unknown", "instruction_set": "unknown",
        "threads": 1, "canaries": {"set": 1, "logits": logits}, "note": "kept", **more,
    }  # fmt: skip


def logits_of(base: Base, weight: Any, bias: Any, deltas: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """The canaries' logits with plain torch: the sentences of the document, mean pooling, one linear layer."""
    backbone = base.view(2).backbone
    with torch.no_grad():
        for path, delta in deltas.items():
            parameter = backbone.get_parameter(f"{path}.weight")
            parameter.data = parameter.data + delta
    found = {}
    for name, sentence in sentences().items():
        ids = torch.tensor([[byte + 10 for byte in (sentence.encode() or b"\0")[:48]]])
        with torch.no_grad():
            state = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)
            found[name] = (torch.from_numpy(weight) @ state + torch.from_numpy(bias)).tolist()
    return found


def sentences() -> dict[str, str]:
    found = {name: (re.match("`(.*?)`", cells[1]) or [None, ""])[1] for name, cells in rows_of("Canaries").items()}
    found["long"] = " ".join(f"Item {number} of the list is here." for number in range(1, 301))
    return {name: sentence or "" for name, sentence in found.items()}


def test_the_document_has_every_field_and_sentence() -> None:
    assert set(rows_of("The header")) == set(KNOWN) and len(KNOWN) == 32
    assert sentences() == dict(SENTENCES)


@pytest.mark.parametrize("kind", ["head-only", "lora"])
def test_another_program_writes_an_adapter(kind: str, tmp_path: Path) -> None:
    base = shared_base("bert")
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return random.normal(0, 0.3, shape).astype(np.float32)

    weight, bias = draw(2, 32), draw(2)
    tensors, deltas = {"head.linear.weight": weight, "head.linear.bias": bias}, {}
    if kind == "lora":
        paths = [f"encoder.layer.{n}.attention.self.{part}" for n in range(3) for part in ("key", "query", "value")]
        for path in paths:
            a, b = draw(2, 32), draw(32, 2)
            tensors |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
            deltas[path] = torch.from_numpy(2.5 * b @ a)
        settings = {"rank": 2, "alpha": 5.0, "dropout": 0.0, "targets": "attention", "blocks": None}
        more = {"strategy": "lora", "settings": settings, "scaling": 2.5, "fan_in_fan_out": False}
        config: dict[str, Any] = {
            "peft_type": "LORA", "peft_version": "", "task_type": "FEATURE_EXTRACTION", "r": 2, "lora_alpha": 5,
            "lora_dropout": 0.0, "target_modules": paths, "modules_to_save": None, "fan_in_fan_out": False,
            "bias": "none", "inference_mode": True, "init_lora_weights": True, "use_dora": False, "use_rslora": False,
            "rank_pattern": {}, "alpha_pattern": {},
        }  # fmt: skip
    else:
        more = {"strategy": "head-only", "settings": {}}
        config = {}
    header = fields(base, logits_of(base, weight, bias, deltas), **more)
    if kind == "head-only":
        repeated = (
            "schema strategy settings task labels positive_label threshold temperature head pooling max_length "
            "truncation base_name base_digest tokenizer_digest"
        )
        config = {name: header[name] for name in repeated.split()} | {"digest": ""}
    write(tmp_path / "a", header, {**config, "base_model_name_or_path": base.name, "revision": None}, tensors)
    adapter = load_adapter(tmp_path / "a", base, verify=True)
    assert adapter.header.extra == {"note": "kept"} and adapter.header.data_name == "Übung"
    assert np.allclose(adapter.logits([SENTENCES["plain"]])[0], header["canaries"]["logits"]["plain"], atol=1e-5)
    adapter.save(tmp_path / "b")
    first, second = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab")
    assert first[8 + int.from_bytes(first[:8], "little") :] == second[8 + int.from_bytes(second[:8], "little") :]
    assert load_adapter(tmp_path / "b", base).header == adapter.header
