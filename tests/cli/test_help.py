"""Help: there at once, whole, and growing with the code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from lora_clf.cli.app import COMMANDS
from lora_clf.cli.flags import StrategyFlags, TrainFlags

HEAVY = {"torch", "transformers", "pandas", "numpy", "peft", "sklearn", "matplotlib", "huggingface_hub", "scipy"}


def modules_after(*args: str) -> tuple[set[str], str]:
    program = (
        "import sys\n"
        "from lora_clf.cli.app import app\n"
        f"try: app({list(args)!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('MODULES', *sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    shown, _, names = ran.stdout.partition("MODULES ")
    return set(names.split()), shown


@pytest.mark.parametrize("args", [["--help"], [], ["--version"]], ids=["help", "nothing", "version"])
def test_the_first_answer_imports_nothing_heavy(args: list[str]) -> None:
    names, shown = modules_after(*args)
    assert not HEAVY & names
    assert not {f"lora_clf.cli.{command}" for command in COMMANDS} & names
    assert shown.startswith("lora-clf 0") if args == ["--version"] else all(name in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "command", [["predict"], ["evaluate"], ["bases"], ["data"], ["cache"], ["adapters"], ["strategies"]]
)
def test_help_of_a_command_imports_nothing_heavy(command: list[str]) -> None:
    names, shown = modules_after(*command, "--help")
    assert not HEAVY & names
    assert "--json" in shown or "COMMAND" in shown


def test_every_command_is_in_the_table_with_the_help_it_has(cli: Callable[..., Any]) -> None:
    for name, text in COMMANDS.items():
        shown = " ".join(cli(name, "--help").ok().out.split())
        assert text.split(":")[0].split(",")[0].rstrip(".") in shown, name


def test_the_flags_of_strategies_and_loop_come_from_their_fields(cli: Callable[..., Any]) -> None:
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import strategies

    shown = cli("train", "--help").ok().out
    names = {field for kind in strategies().values() for field in kind.flags()}
    assert {"rank", "alpha", "dropout", "targets", "blocks"} <= names
    names |= set(TrainSettings.__dataclass_fields__)
    for name in names:
        assert f"--{name.replace('_', '-')} " in shown, name
    for flag in ("--base", "--data", "--protocol", "--strategy", "--seed", "--out", "--device", "--pooling"):
        assert f"{flag} " in shown
    assert "lora-scratch, rslora, dora, adalora: 8; vera: 256" in " ".join(shown.replace("│", " ").split())


def test_a_strategy_with_other_types_of_the_same_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strategies may mean different things by one name; each gets its own type."""
    from lora_clf.cli import flags
    from lora_clf.errors import UsageError
    from lora_clf.tuners.base import Tuner

    @dataclass(frozen=True)
    class Whole(Tuner):
        """Has a whole number.

        Attributes:
            size: how large,
                in rows.
        """

        size: int = 1
        name: ClassVar[str] = "whole"

    @dataclass(frozen=True)
    class Real(Tuner):
        """Has a real number."""

        size: float = 0.5
        on: bool = False
        name: ClassVar[str] = "real"

    owners = {"size": {"whole": Whole, "real": Real}, "on": {"real": Real}}
    monkeypatch.setattr(flags, "_owners", lambda: owners)
    size, on = StrategyFlags.parameters()
    assert "How large, in rows (whole: 1; real: 0.5)" in size.annotation.__metadata__[0].help
    assert size.annotation.__origin__ == (float | None) and on.annotation.__origin__ == (bool | None)
    assert StrategyFlags.gather({"size": 2.0, "on": None}) == {"size": 2.0}
    each = StrategyFlags({"size": 2.0}).each(["whole", "real"])
    assert each == {"whole": {"size": 2}, "real": {"size": 2.0}} and isinstance(each["whole"]["size"], int)
    with pytest.raises(UsageError, match=r"--size 2.5: expected int"):
        StrategyFlags({"size": 2.5}).each(["whole"])
    with pytest.raises(UsageError, match="--on applies to none of whole; it is a flag of real"):
        StrategyFlags({"on": True}).each(["whole"])


def test_loop_flags_leave_out_what_has_a_flag_of_its_own() -> None:
    names = [parameter.name for parameter in TrainFlags.parameters()]
    assert "epochs" in names and not {"seed", "max_length"} & set(names)
