"""A change after which the forward does not run is neither offered to methods nor accepted; doubt is resolved by running."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.graph.expr import Atom
from coppice.methods.graph.values import AttributeEdit
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan
from coppice.methods.record.architecture import rebuild, record, tensors_of
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.running import modes_that_run
from coppice.methods.surgery.verdicts import settle

SIZES, MODE = {"rows": 8}, "training"


class Hidden(nn.Module):
    """Reads its hidden width where nothing of the module says so."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)).view(-1, SIZES["rows"]))


class InTraining(Hidden):
    """The same, but only while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.a(x))
        return self.b(y.view(-1, SIZES["rows"]) if self.training else y)


class Attributes(nn.Module):
    """`width` is what the view needs; `other` has the same value by chance and changes what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.width = self.other = 8
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)).view(-1, self.width)) * self.other


def doubtful() -> Network:
    torch.manual_seed(0)
    network = Network(Attributes(), f"{__name__}:Attributes", {}, (torch.randn(5, 4),))
    (hidden,) = (e for e in network.elements() if e.name == "a.weight:0")
    atom = Atom("a.weight:0", 8)
    edits = tuple(AttributeEdit("", name, atom) for name in ("width", "other"))
    changed = replace(hidden, attributes=edits, reason=None, grow="exact", shrink="exact")
    network._elements = tuple(changed if e is hidden else e for e in network.elements())
    return network


@pytest.mark.parametrize("kind", [Hidden, InTraining])
def test_what_does_not_run_is_refused_and_nothing_is_changed(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = Network(kind(), "x:y", {}, (torch.randn(5, 4),))
    element = next(e for e in network.elements() if e.name == "a.weight:0")
    if not element.permissible:
        pytest.skip("the algebra knows it")
    before = {n: p.clone() for n, p in network.module.named_parameters()}
    with pytest.raises(PlanError, match=r"a\.weight:0 .*the forward does not run at test_verdicts\.py:\d+ \(.*view"):
        apply(network, GrowPlan("a.weight:0", 1))
    assert all(torch.equal(p, before[n]) for n, p in network.module.named_parameters())
    assert network.lineage == []
    settled = next(e for e in settle(network) if e.name == "a.weight:0")
    assert not settled.permissible and "test_verdicts.py" in str(settled.reason)
    assert "size" not in str(settled.reason).split("run at")[1], "the reason is not PyTorch's own text"


def test_attributes_follow_only_where_the_function_then_is_what_is_claimed() -> None:
    network = doubtful()
    assert network.element("a.weight:0").doubt is not None
    settled = next(e for e in settle(network) if e.name == "a.weight:0")
    assert settled.permissible and settled.doubt is None and [a.name for a in settled.attributes] == ["width"]


def test_apply_resolves_doubt_by_itself_and_the_record_keeps_the_verdict() -> None:
    network = doubtful()
    (x,) = network.example_inputs
    before = network.module(x)
    apply(network, GrowPlan("a.weight:0", 2))
    assert (network.module.width, network.module.other) == (10, 8)
    assert torch.allclose(network.module(x), before, atol=1e-6)
    again = rebuild(json.loads(json.dumps(record(network))), tensors_of(network), trust=["tests"])
    assert again.verdicts == network.verdicts != {}
    assert torch.equal(again.module(x), network.module(x))


def test_a_mode_that_never_ran_is_not_asked_for() -> None:
    class OnlyEval(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            if getattr(self, MODE):
                raise ValueError("targets are needed")
            return self.b(torch.tanh(self.a(x)))

    network = Network(OnlyEval(), "x:y", {}, (torch.randn(5, 4),))
    assert list(modes_that_run(network)) == [False]
    assert apply(network, GrowPlan("a.weight:0", 1)).accepted
