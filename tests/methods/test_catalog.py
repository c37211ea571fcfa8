"""Names become methods and selections; what is wrong is said with what would be right."""

import json
from dataclasses import dataclass

import pytest

from coppice.methods.catalog import TABLES, build, describe, resolve
from coppice.methods.growth.random import Random
from coppice.methods.pruning.magnitude import Magnitude


@dataclass(frozen=True)
class Mine(Random):
    """A user's own."""


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, t in TABLES.items() for n in t])
def test_every_entry_builds_and_describes_itself(kind, name):
    made = build(kind, name, {})
    assert made == build(kind, name, {}) and hash(made) == hash(build(kind, name, {}))
    about = describe(name, kind)
    json.dumps(about)
    assert about["kind"] == kind and about["about"]
    if kind != "selection":
        assert about["paper"] and about["levels"] and about["batch_norm"]
    for key, parameter in about["parameters"].items():
        assert parameter["help"], key
        build(kind, name, {key: parameter["default"]})


def test_names_of_users_resolve():
    assert isinstance(build("grow", f"{__name__}:Mine", {"scale": 2.0}), Mine)


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "said"),
    [
        ("grow", "gradmaxx", {}, r"gradmax.*package.module:attribute"),
        ("grow", "magnitude", {}, r"unknown grow 'magnitude'; known are \['cascade'"),
        ("grow", "no.such.module:Thing", {}, "must be importable"),
        ("grow", "coppice.methods.pruning.magnitude:Magnitude", {}, "must be a method of kind grow, but its kind is prune"),
        ("selection", "coppice.methods.pruning.magnitude:Magnitude", {}, "must be a subclass of coppice.*Selection"),
        ("sideways", "random", {}, "kind must be one of"),
        ("grow", "random", {"sclae": 1}, "takes the parameters.*scale.*sclae"),
        ("grow", "random", {"scale": 1e9}, r"0.001 <= scale <= 10.0 must hold"),
        ("grow", "random", {"scale": "big"}, "must be a number"),
        ("grow", "gradmax", {"num_batches": 1.5}, "must be a whole number"),
        ("grow", "random", {"init": "zeros"}, "kaiming"),
    ],
)
def test_what_is_wrong_is_said(kind, name, arguments, said):
    with pytest.raises(ValueError, match=said):
        build(kind, name, arguments)


def test_resolve_gives_the_class():
    assert resolve("prune", "magnitude") is Magnitude
    with pytest.raises(ValueError, match="must be one of"):
        describe("nothing")
