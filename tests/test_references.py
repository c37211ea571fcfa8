"""Names become things in one way; references to places of before the move still do, and nobody else's are touched."""

import pytest

from coppice.methods.method import Method
from coppice.moved_references import MOVED
from coppice.references import UnresolvedName, moved, resolve

TABLE = {"here": f"{__name__}:Here", "direct": Method}


class Here:
    inner = "inner"


def test_names_references_and_parts_of_classes():
    assert resolve("thing", "here", TABLE) is Here
    assert resolve("thing", "direct", TABLE, Method) is Method
    assert resolve("thing", f"{__name__}:Here", {}, object) is Here
    assert resolve("thing", f"{__name__}:Here.inner", {}) == "inner"


@pytest.mark.parametrize(
    ("name", "table", "base", "said"),
    [
        ("herr", TABLE, None, r"unknown thing 'herr' \(did you mean 'here'\?\); known are \['direct', 'here'\], or give package"),
        ("here:", TABLE, None, "unknown thing 'here:'"),
        (":here", {}, None, "a thing must be named package.module:attribute, but got ':here'"),
        ("no.such:thing", {}, None, "thing 'no.such:thing': no.such must be importable, but No .*; check PYTHONPATH"),
        (f"{__name__}:There", {}, None, r"has no 'There'; it has \[.*'Here'"),
        (f"{__name__}:Here.outer", {}, None, r"has no 'outer'; it has \['inner'\]"),
        (f"{__name__}:TABLE", {}, object, "must be a class, but is {"),
        ("here", TABLE, Method, "thing 'here' must be a subclass of coppice.methods.method.Method, but is <class"),
    ],
)
def test_what_stands_for_nothing_says_why(name, table, base, said):
    with pytest.raises(UnresolvedName, match=said):
        resolve("thing", name, table, base)


@pytest.mark.parametrize("old", MOVED)
def test_places_of_before_the_move_are_found(old):
    assert callable(resolve("thing", old, {}))


def test_only_our_own_old_places_are_translated():
    assert moved("orchestrator.trial:Trial") == "coppice.orchestrator.trial.trial:Trial"
    for own in ("methods.networks.resnet:mine", "methods.mine:resnet", "scheduler:Never", "mine:resnet", "resnet"):
        assert moved(own) == own
