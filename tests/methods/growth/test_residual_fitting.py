"""What the network leaves unexplained is fitted, appended exactly, and only where it can be explained."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.growth.residual_fitting.chain import Chain, chain_of, why_no_chain
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed
from coppice.testing.method import GrowthContract

ADVISED = Amount(0, "advised")


class Images(nn.Module):
    """The contract's inputs and outputs, by a chain with two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_norm = nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU())
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.hidden(self.stem_norm(x.flatten(1))))


class TestContract(GrowthContract):
    amount = ADVISED

    @pytest.fixture(params=[{"width": 4}, {"width": 3, "residual": "gradient", "step": 0.5}], ids=str)
    def method(self, request):
        self.measures = True
        return build("grow", "residual_fitting", {"steps": 60, "num_batches": 1, **request.param})

    def context(self, dtype=torch.float32, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module, classes = Images().to(dtype), torch.arange(64) % 4
            templates = torch.randn(4, 3, 8, 8, dtype=dtype)
            inputs = templates[classes] + 0.1 * torch.randn(64, 3, 8, 8, dtype=dtype)
            return context(module, inputs, classes, seed)


def regression(hidden=(4, 3), noise=False, dtype=torch.float64, bias=True):
    """A smooth function that small networks can fit; with `noise`, none."""
    torch.manual_seed(0)
    sizes = [3, *hidden, 2]
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b, bias=bias), nn.Tanh())][:-1]
    x = torch.randn(200, 3, dtype=dtype)
    y = torch.stack([(2 * x[:, 0]).sin(), x[:, 1] * x[:, 2]], 1)
    y = torch.randn(200, 2, dtype=dtype) if noise else y
    return context(nn.Sequential(*layers).to(dtype), x, y, loss=F.mse_loss)


def small_network(data, names, x, activation):
    """What the fitted network predicts, from the weights alone."""
    for name in names:
        x = activation(F.linear(x, data[name]["rows"], data[name].get("bias")))
    return F.linear(x, data[names[-1]]["columns"])


@pytest.mark.parametrize("hidden", [(5,), (4, 3), (4, 3, 5)])
@pytest.mark.parametrize("step", [1.0, 0.3])
def test_the_function_changes_by_the_prediction(hidden, step):
    ctx = regression(hidden)
    method = build("grow", "residual_fitting", {"width": 6, "step": step, "num_batches": 1, "steps": 60})
    names = [e.name for e in ctx.network.elements() if e.level == "channel" and e.permissible]
    elements = [ctx.network.element(n) for n in names]
    measurement = method.measure(replace(ctx, generator=torch.Generator().manual_seed(3)), elements, dict.fromkeys(names, 64))
    assert measurement.advised == dict.fromkeys(names, 6) and measurement.signals["r2"] > 0.05
    before, x = copy.deepcopy(ctx.network.module), torch.randn(50, 3, dtype=torch.float64)
    result = adapt(replace(ctx, generator=torch.Generator().manual_seed(3)), Adaptation(method, All(), ADVISED))
    assert [e.count for e in result.events] == [6] * len(hidden) and not result.skipped
    change = ctx.network.module(x) - before(x)
    expected = small_network(measurement.data, names, x, torch.tanh)
    assert expected.abs().max() > 0.05 * step and (change - expected).abs().max() < 1e-12


def test_the_residual_gets_smaller_by_what_was_explained():
    """R^2 was measured on samples that were not fitted: on new ones it holds."""
    ctx = regression((4, 3))
    method = build("grow", "residual_fitting", {"width": 16, "num_batches": 1, "steps": 400})
    elements = [e for e in ctx.network.elements() if e.level == "channel" and e.permissible]
    r2 = method.measure(ctx, elements, dict.fromkeys([e.name for e in elements], 64)).signals["r2"]
    torch.manual_seed(7)
    x = torch.randn(1000, 3, dtype=torch.float64)
    y = torch.stack([(2 * x[:, 0]).sin(), x[:, 1] * x[:, 2]], 1)
    r = y - ctx.network.module(x)
    adapt(ctx, Adaptation(method, All(), ADVISED))
    left = y - ctx.network.module(x)
    explained = 1 - float((left.square().sum() / (r - r.mean(0)).square().sum()).detach())
    assert r2 > 0.4 and explained == pytest.approx(r2, abs=0.25)


def test_a_first_order_gain_is_predicted():
    ctx = regression((4, 3))
    method = build("grow", "residual_fitting", {"width": 8, "step": 1e-3, "num_batches": 1})
    inputs, targets = next(iter(ctx.batches(1)))
    held_out = (inputs[150:], targets[150:])
    before = float(F.mse_loss(ctx.network.module(held_out[0]), held_out[1]).detach())
    events = adapt(ctx, Adaptation(method, All(), ADVISED)).events
    decrease = before - float(F.mse_loss(ctx.network.module(held_out[0]), held_out[1]).detach())
    assert events[0].predicted is None and decrease == pytest.approx(events[-1].predicted, rel=0.01) and decrease > 0


def test_what_cannot_be_explained_is_not_grown():
    ctx = regression(noise=True)
    result = adapt(ctx, Adaptation(build("grow", "residual_fitting", {"num_batches": 1, "steps": 100}), All(), ADVISED))
    assert not result.events and "nothing to offer" in " ".join(result.skipped)
    elements = [e for e in ctx.network.elements() if e.level == "channel" and e.permissible]
    measured = build("grow", "residual_fitting", {"num_batches": 1, "steps": 100}).measure(
        ctx, elements, {e.name: 64 for e in elements}
    )
    assert measured.signals["r2"] < 0.05


def test_another_number_of_units_than_was_fitted_is_told():
    ctx = regression((4, 3))
    before = copy.deepcopy(ctx.network.module)
    result = adapt(ctx, Adaptation(build("grow", "residual_fitting", {"width": 8, "num_batches": 1}), All(), 0.5))
    assert not result.events and "all 8 units that were fitted must join, but 2 were chosen" in " ".join(result.skipped)
    inputs, _ = next(iter(ctx.batches(1)))
    assert torch.equal(before(inputs), ctx.network.module(inputs))


def test_all_hidden_layers_or_none():
    ctx = regression((4, 3))
    method = build("grow", "residual_fitting", {"num_batches": 1, "steps": 100})
    result = adapt(ctx, Adaptation(method, All(), ADVISED, Scope(elements=("2.weight:0",))))
    assert not result.events and "nothing to offer" in " ".join(result.skipped)


class LastOnly(All):
    def choose(self, *args):
        return super().choose(*args)[-1:]


def test_a_layer_without_the_units_that_it_needs_is_left_out():
    ctx = regression((4, 3))
    inputs, _ = next(iter(ctx.batches(1)))
    before = ctx.network.module(inputs)
    result = adapt(ctx, Adaptation(build("grow", "residual_fitting", {"num_batches": 1, "steps": 60}), LastOnly(), ADVISED))
    assert not result.events and "must have shape [8, 4], but have [8, 12]" in " ".join(result.skipped)
    assert torch.equal(before, ctx.network.module(inputs))


def test_layers_without_bias_get_none():
    ctx = regression((4, 3), bias=False)
    assert (
        len(adapt(ctx, Adaptation(build("grow", "residual_fitting", {"num_batches": 1, "steps": 100}), All(), ADVISED)).events)
        == 2
    )


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x):
        return x + self.b(self.act(self.a(x)))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), "BatchNorm1d"),
        (nn.Sequential(nn.Linear(3, 2)), "no hidden layer"),
        (nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 2)), "PReLU"),
        (nn.Sequential(nn.Linear(3, 5), nn.Softmax(1), nn.Linear(5, 2)), "Softmax"),
        (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2), nn.Sigmoid()), "more than run"),
        (Skip(), "more than run"),
    ],
)
def test_other_networks_are_refused(module, said):
    ctx = context(module, torch.randn(6, 3), torch.randint(2, (6,)))
    assert said in why_no_chain(ctx.network)


def test_a_chain_is_found_and_convolutions_are_refused():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))
    ctx = context(module, torch.randn(6, 3, 4), torch.randint(2, (6,)))
    assert chain_of(ctx.network) == Chain(("1", "4"), (("2", "3"),))
    ctx = mixed()
    assert "chain of Linear" in build("grow", "residual_fitting", {}).accepts(ctx, ctx.network.element("conv.weight:0"))
