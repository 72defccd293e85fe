"""The house keeps its order: which room may import which, how files are called, how long they get."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lora_clf

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "lora_clf"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "errors",
    "figures",
    "metrics",
    "tasks",
    "data",
    "base",
    "tuners",
    "inference",
    "adapters",
    "training",
    "evaluation",
    "comparison",
    "reports",
    "experiment",
    "cli",
)
FILES_ALONE = {"errors", "figures"}  # rooms of one file
LONGEST = 450


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> set[str]:
    """Full names of everything that a file imports, wherever in the file, for type checking too."""
    found: set[str] = set()
    package = list(file.relative_to(REPOSITORY).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "lora_clf" else None


IMPORTS = {file: imports(file) for file in FILES}
INSIDE_ROOMS = [file for file in FILES if file.parent != PACKAGE or file.stem in FILES_ALONE]


def test_the_reader_saw_the_package() -> None:
    assert len(IMPORTS) == len(list(PACKAGE.rglob("*.py"))) > 20
    assert {room_of(module_name(file)) for file in INSIDE_ROOMS} == set(ROOMS)
    assert any("numpy" in names for names in IMPORTS.values())
    assert "lora_clf.cli.app.main" in IMPORTS[PACKAGE / "__main__.py"]


def test_every_room_is_in_the_order_and_documented() -> None:
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS) - FILES_ALONE
    for room in folders:
        text = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), room


@pytest.mark.parametrize("file", INSIDE_ROOMS, ids=module_name)
def test_imports_point_one_way(file: Path) -> None:
    room = room_of(module_name(file))
    assert room is not None
    allowed = {*ROOMS[: ROOMS.index(room) + 1]}
    ours = {name for name in IMPORTS[file] if name.split(".")[0] == "lora_clf"}
    # Through the public face an import would not show where it points; the version lives nowhere else.
    wrong = {name for name in ours if room_of(name) not in allowed} - {"lora_clf.__version__"}
    assert not wrong, f"{module_name(file)} may import {sorted(allowed)}, but imports {sorted(wrong)}"


def test_no_strategy_imports_another() -> None:
    strategies = {strategy.__module__ for strategy in lora_clf.strategies().values()}
    assert len(strategies) >= 5
    for file, names in IMPORTS.items():
        if (own := module_name(file)) in strategies:
            for other in strategies - {own}:
                assert not any(name == other or name.startswith(f"{other}.") for name in names), (own, other)


def test_files_are_named_after_their_noun() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
    assert not [file for file in FILES if vague & set(file.relative_to(REPOSITORY).with_suffix("").parts)]


def test_no_file_is_too_long() -> None:
    lengths = {module_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_nothing_that_runs_foreign_code(file: Path) -> None:
    """No pickle in any dress: a saved adapter or a downloaded base is data, never a program."""
    calls = {"torch.load", "torch.save", "yaml.load", "eval", "exec", "pd.read_pickle", "os.system"}
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name for name in IMPORTS[file] if name.split(".")[0] in forbidden}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node)
        assert ast.unparse(node.func) not in calls, call
        for keyword in node.keywords:
            true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            assert not (keyword.arg in {"trust_remote_code", "allow_pickle", "shell"} and true), call


def test_no_machine_is_named_in_the_text() -> None:
    """Paths of one machine and hosts of package registries have no place in what is published."""
    folders = [REPOSITORY / name for name in ("lora_clf", "benchmarks", "adapters", ".ci")]
    texts = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    texts += [file for file in REPOSITORY.iterdir() if file.is_file() and file.name != ".git"]
    texts = [file for file in texts if file.suffix not in {".pyc", ".safetensors", ".png", ".so"}]
    assert len(texts) > 30
    names = r"/work/|/root/|pypi\.org|pythonhosted\.org|download\.pytorch\.org"
    found = [
        (file.name, hit.group())
        for file in texts
        for hit in [re.search(names, file.read_text(encoding="utf-8", errors="replace"))]
        if hit
    ]
    assert not found


def test_the_public_face_is_whole_and_lazy() -> None:
    assert sorted(lora_clf.__all__) == dir(lora_clf) and len(lora_clf.__all__) > 30
    for name in lora_clf.__all__:
        assert getattr(lora_clf, name) is not None
    with pytest.raises(AttributeError, match="load_base"):
        lora_clf.load_bases  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, lora_clf; print(*{name.split('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    heavy = {
        *("numpy", "torch", "transformers", "pandas", "typer", "peft", "sklearn", "scipy", "matplotlib"),
        "huggingface_hub",
    }
    assert "lora_clf" in ran.stdout.split() and not heavy & set(ran.stdout.split())
