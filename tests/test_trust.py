"""Whose code a file may have run: nothing of anybody else's is imported or called."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from coppice.methods.network import Network
from coppice.methods.networks.mlp import mlp
from coppice.methods.record.architecture import ArchitectureError, rebuild, record, tensors_of
from coppice.trust import Untrusted, require_trusted

SOURCE = """
import functools
import os
import pathlib
from subprocess import check_output
from torch import nn
pathlib.Path(__file__).with_name("imported").touch()
def net(width=3):
    return nn.Linear(width, 2)
class Net(nn.Linear):
    @classmethod
    def small(cls):
        return cls(3, 2)
partly = functools.partial(net, 4)
borrowed = functools.partial(os.system)
"""


@pytest.fixture
def mynets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package `mynets` that leaves a file behind once it is imported; whether it was, says what is returned."""
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").write_text("")
    (tmp_path / "mynets" / "small.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield (tmp_path / "mynets" / "imported").exists
    for name in [n for n in sys.modules if n.partition(".")[0] == "mynets"]:
        del sys.modules[name]


def _record(reference: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    network = Network(mlp(3, 2, (4,)), "coppice.methods.networks.mlp:mlp", {"in_features": 3, "out_features": 2, "hidden": [4]})
    return {**record(network), "factory": {"reference": reference, "arguments": arguments}}, tensors_of(network)


RUNS = [
    ("os:system", "command", ()),
    ("posix:system", "command", ()),
    ("os:system", "command", ("os",)),
    ("os:system", "command", ("os:system",)),
    ("subprocess:getoutput", "cmd", ("subprocess", "mynets")),
    ("builtins:exec", "source", ()),
    ("timeit:timeit", "stmt", ()),
    ("mynets.small:os.system", "command", ("mynets",)),
    ("mynets.small:borrowed", "command", ("mynets",)),
    ("mynets.small:check_output", "args", ("mynets",)),
    ("mynets.small:net", "width", ()),
    ("mynets.small:net", "width", ("mynet", "mynets.smal", "mynets.small.net", "")),
    ("torch:load", "f", ()),
    ("coppice.references:importlib.import_module", "name", ()),
    ("coppice.methods.networks.catalog:import_factory", "reference", ()),
    ("coppice.methods.networks.mlp:torch.load", "f", ()),
]


@pytest.mark.parametrize(("reference", "argument", "trust"), RUNS, ids=[f"{r} trusting {','.join(t)}" for r, _, t in RUNS])
def test_what_is_not_trusted_never_runs(
    reference: str, argument: str, trust: tuple[str, ...], mynets: Any, tmp_path: Path
) -> None:
    hit = tmp_path / "hit"
    command = f"open({str(hit)!r}, 'w')" if argument in ("source", "stmt") else f"touch {hit}"
    saved, tensors = _record(reference, {argument: command.split() if argument == "args" else command})
    with pytest.raises(Untrusted, match=r"nothing of it was run"):
        rebuild(saved, tensors, trust=trust)
    assert not hit.exists()
    if "mynets" not in trust:
        assert not mynets(), "a module that is not trusted is not even imported"


@pytest.mark.parametrize("trust", [("mynets",), ("mynets.small",), ("mynets.small:net",), ("other", "mynets")])
def test_what_is_trusted_is_built(trust: tuple[str, ...], mynets: Any) -> None:
    require_trusted("network", "mynets.small:net", "coppice.methods.networks", trust)
    saved, tensors = _record("mynets.small:net", {"width": 3})
    with pytest.raises(ArchitectureError, match="names or shapes"):
        rebuild(saved, tensors, trust=trust)
    assert mynets()


@pytest.mark.parametrize("attribute", ["Net", "Net.small", "partly"])
def test_classes_methods_and_partials_of_a_trusted_package(attribute: str, mynets: Any) -> None:
    require_trusted("network", f"mynets.small:{attribute}", "coppice.methods.networks", ["mynets"])


def test_exactly_one_callable_wherever_it_is_defined(mynets: Any) -> None:
    require_trusted("network", "mynets.small:nn.Linear", "coppice.methods.networks", ["mynets.small:nn.Linear"])
    with pytest.raises(Untrusted, match=r"--trust torch"):
        require_trusted("network", "mynets.small:nn.Linear", "coppice.methods.networks", ["mynets"])


def test_ours_need_no_trust() -> None:
    network = Network(mlp(3, 2, (4,)), "coppice.methods.networks.mlp:mlp", {"in_features": 3, "out_features": 2, "hidden": [4]})
    x = torch.zeros(2, 3)
    assert rebuild(record(network), tensors_of(network)).module(x).equal(network.module(x))


def test_the_running_program_may_name_what_it_defines_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    program = types.ModuleType("__main__")
    exec("import os\nfrom subprocess import run\nclass Net: pass\ndef net(): return Net()\n", program.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", program)
    for attribute in ("net", "Net"):
        require_trusted("network", f"__main__:{attribute}", "coppice.methods.networks", ())
    for attribute in ("os.system", "run"):
        with pytest.raises(Untrusted, match=r"subprocess|os"):
            require_trusted("network", f"__main__:{attribute}", "coppice.methods.networks", ())
