"""The measuring itself: it sees what is wrong."""

import functools

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.network import Network
from tests.zoo.measure import Subject, listing_leaves, relative, try_elements, walk
from tests.zoo.object_graph import differences, object_graph


@functools.lru_cache
def known(size: int) -> Tensor:
    return torch.ones(size)


HELD: dict[int, Tensor] = {}


class Plain(nn.Module):
    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, hidden), nn.Linear(hidden, 3)
        self.notes: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def build() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


def plain() -> Network:
    return Network(build(), "tests.zoo.test_measure:build", {}, (torch.randn(5, 4),))


def test_a_sound_network_has_no_faults() -> None:
    network = plain()
    assert listing_leaves(network) == []
    tried = try_elements(Subject.of(network))
    assert tried.number >= 3 and tried.faults == []
    assert walk(plain()) == []


def test_traces_are_seen() -> None:
    module = build()
    known.cache_clear(), HELD.clear()
    before = object_graph(module)
    assert differences(before, object_graph(module)) == []
    module.notes.append(torch.ones(2))
    module.a.register_forward_hook(lambda *_: None)
    known(3)
    HELD[3] = torch.ones(3, device="meta")
    module.b.bias.data[0] += 1e-7
    paths = " ".join(differences(before, object_graph(module)))
    for part in ("module.notes", "_forward_hooks", "known", "HELD", "[bias]"):
        assert part in paths, part
    known.cache_clear(), HELD.clear()


def test_false_claims_are_seen(monkeypatch) -> None:
    subject = Subject.of(plain())
    kinds = lambda: {f.kind for f in try_elements(subject).faults}
    monkeypatch.setattr("tests.zoo.measure.relative", lambda *_: 1e-3)
    assert kinds() == {"inexact"}
    monkeypatch.undo()
    monkeypatch.setattr("tests.zoo.measure.apply", lambda network, _: setattr(network.module, "b", nn.Linear(9, 3)))
    assert kinds() == {"broken"}


def test_what_does_not_move_is_seen(monkeypatch) -> None:
    subject = Subject.of(plain())
    monkeypatch.setattr("tests.zoo.measure._train", lambda network: network.module.a.weight.data[:6].add_(1))
    faults = try_elements(subject).faults
    assert [f.what for f in faults if f.kind == "dead"] == ["new entries of a.weight:0 do not move"]


def test_changes_of_shape_count() -> None:
    assert relative([torch.ones(2)], [torch.ones(3)]) == float("inf")
    assert relative([torch.tensor([1.0, 2.1])], [torch.tensor([1.0, 2.0])]) > 0.04


def test_a_page_is_filled_between_its_marks() -> None:
    fill = pytest.importorskip("tests.zoo.table", reason="the extra [zoo] is not installed").fill
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb"
    assert fill(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb"
