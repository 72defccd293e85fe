"""What is read is data: nothing is unpickled in our paths, and no code that lies in a base's folder is run."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers.dynamic_module_utils as dynamic

from lora_clf.adapters.adapter import load_adapter
from lora_clf.base.base import load_base
from lora_clf.errors import AdapterError, LoraClfError, UnsupportedBaseError
from tests import pickles
from tests.adapters.making import make
from tests.adapters.whole_bases import whole_base

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = "from pathlib import Path\nPath({marker!r}).touch()\nraise SystemExit('ran')\n"


def within(module: str, code: str) -> None:
    exec(compile(code, module, "exec"), {"__name__": module, "data": pickle.dumps(Path("x"))})


def test_unpickling_below_our_code_is_caught_even_where_it_is_swallowed() -> None:
    with pytest.raises(pickles.Unpickled, match=r"lora_clf\.planted had pathlib"):
        within("lora_clf.planted", "import pickle; pickle.loads(data)")
    within("lora_clf.planted", "import pickle\ntry: pickle.loads(data)\nexcept Exception: pass")
    assert len(pickles.told()) == 2 and pickles.told() == []


def test_what_other_libraries_do_is_theirs() -> None:
    within("somebody", "import pickle; pickle.loads(data)")
    within("lora_clf_alike", "import pickle; pickle.loads(data)")
    assert pickles.found == []


CHILD = """
import pickle
from pathlib import Path
code = "import pickle; pickle.loads(data)"
if {swallowed}:
    code = "import pickle\\ntry: pickle.loads(data)\\nexcept Exception: pass"
exec(compile(code, "child", "exec"), {{"__name__": {module!r}, "data": pickle.dumps(Path("x"))}})
"""


def child(module: str, swallowed: bool = False, *flags: str, **named: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *flags, "-c", CHILD.format(module=module, swallowed=swallowed)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, **named)


@pytest.mark.parametrize("flags", [(), ("-P",)], ids=["plain", "as a worker"])
def test_unpickling_in_a_process_that_a_test_starts_fails_the_test(flags: tuple[str, ...]) -> None:
    ran = child("lora_clf.planted", False, *flags)
    assert ran.returncode == 1 and "Unpickled: lora_clf.planted had pathlib" in ran.stderr
    assert child("lora_clf.planted", True, *flags).returncode == 0  # nobody would know of it
    said = pickles.told()
    assert len(said) == 2 and all("lora_clf.planted had pathlib" in line for line in said)
    ran = child("somebody", False, *flags)
    assert ran.returncode == 0 and pickles.told() == [], ran.stderr


def test_the_hook_leaves_the_systems_own_start_alone(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.stderr.write('mine')")
    ran = child("lora_clf.planted", env={**os.environ, "PYTHONPATH": pickles.search_path(tmp_path)})
    assert ran.stderr.startswith("mine") and ran.returncode == 1 and len(pickles.told()) == 1


def test_no_test_starts_a_process_without_the_hook() -> None:
    """Neither by an environment of its own, nor by a search path without the hook, nor by flags that pass it over."""
    given = 0
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "PYTHONPATH":
                        assert isinstance(value, ast.Call) and ast.unparse(value.func).endswith("search_path"), file
                        given += 1
            assert not (isinstance(node, ast.List) and any(
                isinstance(word, ast.Constant) and word.value in ("-I", "-E", "-S") for word in node.elts
            ) and "sys.executable" in ast.unparse(node)), file  # fmt: skip
    assert given >= 4


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What transformers is told of remote code, each time that it asks; fetching any ends the test."""
    told: list[Any] = []
    real = dynamic.resolve_trust_remote_code

    def resolve(trust_remote_code: Any, *args: Any, **kwargs: Any) -> Any:
        told.append(trust_remote_code)
        return real(trust_remote_code, *args, **kwargs)

    def fetched(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"code was fetched: {args}")

    import transformers

    names = ("modeling_auto", "auto_factory", "configuration_auto", "tokenization_auto")
    auto = [getattr(transformers.models.auto, name) for name in names]
    for module in auto:
        for name, stand_in in (
            ("resolve_trust_remote_code", resolve),
            ("get_class_from_dynamic_module", fetched),
        ):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stand_in)
    return told


def test_code_in_a_base_folder_is_never_run(tmp_path: Path, spied: list[Any]) -> None:
    folder, marker = tmp_path / "base", tmp_path / "ran"
    plain = whole_base("bert", folder)
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(PROGRAM.format(marker=str(marker)))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Path("x")))
    for file, classes in (
        ("config.json", {"AutoConfig": "configuration_evil.Evil", "AutoModel": "modeling_evil.Evil"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}),
    ):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, "auto_map": classes, "trust_remote_code": True}))
    base = load_base(folder, device="cpu")
    assert base.digest == plain.digest and base.tokenizer_digest == plain.tokenizer_digest
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "evil"}))
    with pytest.raises(UnsupportedBaseError):
        load_base(folder, device="cpu")
    assert spied and True not in spied
    assert not marker.exists()


def test_a_pickle_is_refused_wherever_weights_are_expected(tmp_path: Path) -> None:
    base = tmp_path / "base"
    whole_base("bert", base)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(LoraClfError, match="pickle"):
        load_base(base, device="cpu")
    (base / "model.safetensors").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(LoraClfError, match="damaged"):
        load_base(base, device="cpu")
    adapter = make("bert", "lora").save(tmp_path / "a")
    shutil.copytree(adapter, tmp_path / "b")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(pickle.dumps(Path("x")))
    for folder in (adapter, tmp_path / "b"):
        for labels in (None, ("ham", "spam")):
            with pytest.raises(AdapterError):
                load_adapter(folder, make("bert").base, labels=labels)
    assert pickles.found == []


def test_nowhere_is_remote_code_trusted() -> None:
    """Neither by a keyword nor by way of a mapping; what is written is False and nothing else."""
    files = [file for room in ("lora_clf", "benchmarks") for file in (REPOSITORY / room).rglob("*.py")]
    said = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, file
                said += 1
            assert not (isinstance(node, ast.Constant) and node.value == "trust_remote_code"), file
    assert len(files) > 100 and said >= 2
