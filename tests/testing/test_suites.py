"""The contract suites that users run on parts of their own: they pass on sound parts, and each fails on a broken one."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from coppice.testing import BodyContract, NetworkContract
from tests.support.waiting import LIMIT_S
from tests.support.zoo import ZOO

MLP_TRIAL: dict[str, Any] = {
    "task": {"dataset": "digits", "dataset_args": {"limit_train": 128}, "network": "mlp", "network_args": {"hidden": [8]}},
    "training": {"epochs": 3, "batch_size": 64, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}},
    "adaptations": [{"grow": {"when": {"periodic": {"every": 1}}, "how": "random", "amount": 2}}],
}


class TestTrial(BodyContract):
    body = "coppice.orchestrator.trial.trial:Trial"
    spec = MLP_TRIAL


class TestOwnBody(BodyContract):
    body = "tests.support.bodies:Quadratic"
    spec = {**MLP_TRIAL, "adaptations": []}


class TestFlat(NetworkContract):
    factory = "tests.support.zoo:flatnet"
    inputs = staticmethod(ZOO["flatnet"][1])


class TestAttention(NetworkContract):
    factory = "tests.support.zoo:vit_sep"
    inputs = staticmethod(ZOO["vit_sep"][1])


BROKEN = {
    "method": """
        from dataclasses import dataclass
        from coppice import GrowPlan, Method
        from coppice.methods.method import Measurement
        from coppice.testing import GrowthContract

        @dataclass(frozen=True)
        class Loud(Method):
            \"\"\"Says that it keeps the function, and does not.\"\"\"
            kind, levels, why, paper, preserves, batch_norm = "grow", ("channel",), "noise", "none", True, "ignored"
            def measure(self, context, elements, most):
                return Measurement({e.name: __import__("torch").empty(0) for e in elements})
            def plan(self, context, element, units, measurement):
                return GrowPlan(element.name, len(units), consume="normal")

        class TestLoud(GrowthContract):
            def make(self):
                return Loud()
    """,
    "selection": """
        from dataclasses import dataclass
        from coppice import Selection
        from coppice.methods.selection import Choice
        from coppice.testing import SelectionContract

        @dataclass(frozen=True)
        class Greedy(Selection):
            \"\"\"Takes more than there is room for.\"\"\"
            why, paper = "greed", "none"
            def choose(self, kind, candidates, amount, limit, turn):
                return [Choice(c.element.name, tuple(range(c.most + 1))) for c in candidates]

        class TestGreedy(SelectionContract):
            def make(self):
                return Greedy()
    """,
    "trigger": """
        import random
        from dataclasses import dataclass
        from coppice import Trigger
        from coppice.testing import TriggerContract

        @dataclass(frozen=True)
        class Moody(Trigger):
            \"\"\"Acts when it likes.\"\"\"
            why, paper = "mood", "none"
            def decides(self, progress):
                return random.random() < 0.5

        class TestMoody(TriggerContract):
            def make(self):
                return "test_broken:Moody", {}
    """,
    "network": """
        import torch
        from coppice.testing import NetworkContract

        class Forgetful(torch.nn.Module):
            \"\"\"Is made anew with another width each time: a record of it cannot come back.\"\"\"
            count = 0
            def __init__(self):
                super().__init__()
                Forgetful.count += 1
                self.a, self.b = torch.nn.Linear(4, 5 + Forgetful.count), torch.nn.Linear(5 + Forgetful.count, 2)
            def forward(self, x):
                return self.b(torch.tanh(self.a(x)))

        class TestForgetful(NetworkContract):
            factory = "test_broken:Forgetful"
            def inputs(self):
                return (torch.randn(3, 4),)
    """,
    "body": """
        from coppice.testing import BodyContract
        from tests.support.bodies import Quadratic

        class Amnesiac(Quadratic):
            \"\"\"Begins again whenever it is opened.\"\"\"
            @classmethod
            def open(cls, spec, folder):
                (folder / "state.json").unlink(missing_ok=True)
                return cls(spec, folder)

        class TestAmnesiac(BodyContract):
            body = "test_broken:Amnesiac"
            spec = {"task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 3}}
    """,
}
"""Parts that break their contract, and what tests them."""


MUST_FAIL = {
    "method": "test_the_function_changes_only_as_declared", "selection": "test_stays_within_room_quantum_multiple_and_limit",
    "trigger": "test_is_a_pure_function", "network": "test_a_changed_network_comes_back_bit_by_bit",
    "body": "test_goes_on_where_it_was",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_part_fails_its_suite_and_the_values_are_shown(kind: str, tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(textwrap.dedent(BROKEN[kind]))
    root = Path(__file__).parents[2]
    config = ["-c", str(root / "pyproject.toml"), "--rootdir", ".", "-p", "no:cacheprovider", "-vv"]
    command = [sys.executable, "-m", "pytest", *config, "test_broken.py"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{root}:{tmp_path}", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^FAILED .*{MUST_FAIL[kind]}", done.stdout, re.M), done.stdout
    assert "passed" in done.stdout and re.search(r"^E +(assert|\S+Error)", done.stdout, re.M), done.stdout
