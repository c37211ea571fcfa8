"""The methods over every network of the zoo: those that say that they keep the function do."""

import pytest
import torch
from torch import Tensor

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.selection import All
from tests.support.resizing import output
from tests.support.zoo import ZOO


class First(torch.nn.Module):
    """A network's first output tensor."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return output(self.module, (x,))


def zoo(name: str) -> Context:
    torch.manual_seed(0)
    factory, inputs = ZOO[name]
    (x,) = inputs()
    network = Network(First(factory()), f"tests.support.zoo:{name}", {}, (x,))
    loss = lambda found, target: found.float().square().mean() + found.float().mean()
    return Context(network, lambda count: [(x, torch.zeros(len(x)))] * count, loss, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(("method", "amount"), [("random", 0.5), ("net2wider", 0.5), ("gradmax", 2), ("deepen", 1)])
def test_growth_keeps_the_function(name, method, amount):
    ctx = zoo(name)
    with torch.no_grad():
        scale = float(ctx.network.module.eval()(ctx.network.example_inputs[0]).abs().max())
    result = adapt(ctx, Adaptation(build("grow", method, {}), All(), amount))
    assert result.events or result.skipped
    for event in result.events:
        assert event.function_change <= 2e-5 * max(scale, event.function_scale), event


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    ("method", "arguments", "amount"),
    [("magnitude", {}, 0.3), ("magnitude", {"removal": "absorb"}, 0.3), ("slimming", {}, 0.3), ("magnitude_weights", {}, 0.3),
     ("remove_blocks", {"layers": True}, 1)],
)  # fmt: skip
def test_pruning_runs(name, method, arguments, amount):
    ctx = zoo(name)
    result = adapt(ctx, Adaptation(build("prune", method, arguments), All(), amount, Scope(minimum=2)))
    assert result.events or result.skipped
    assert torch.isfinite(ctx.network.module.eval()(ctx.network.example_inputs[0])).all()
