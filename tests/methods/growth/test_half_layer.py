"""The half-layer neuron: comes first, is the best of its draws, and the Schur choice is what the full Newton step says."""

import copy

import pytest
import torch

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.half_layer.method import WithNeuron, random_neuron
from coppice.methods.growth.half_layer.schur import ranked_neurons
from coppice.methods.measures.dag_site import Neuron, dag_site_of
from coppice.methods.measures.quadratic import Flat, gauss_newton
from coppice.methods.method import Context
from coppice.methods.selection import All
from coppice.testing.examples import mixed
from coppice.testing.method import GrowthContract
from tests.support.single_connections import classification, loss_of, regression


@pytest.mark.parametrize(
    "arguments", [{"draws": 5}, {"choice": "schur", "draws": 4, "num_batches": 1, "tried": 2}], ids=str, scope="class"
)
class TestContract(GrowthContract):
    measures = True

    def context(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
        return classification(dtype, seed)

    @pytest.fixture
    def method(self, arguments):
        return build("grow", "half_layer", arguments)

    def test_measuring_and_planning_touch_nothing(self, method):
        ctx = self.context()
        before = {n: t.clone() for n, t in ctx.network.module.state_dict().items()}
        rng = torch.get_rng_state()
        assert self.plans(ctx, method)
        assert all(torch.equal(t, before[n]) for n, t in ctx.network.module.state_dict().items())
        assert torch.equal(rng, torch.get_rng_state()) and ctx.network.module.training


def copied(ctx: Context, seed: int = 0) -> Context:
    return Context(copy.deepcopy(ctx.network), ctx.batches, ctx.loss, torch.Generator().manual_seed(seed))


def test_the_neuron_lies_between_the_inputs_and_everything_else():
    ctx = regression((3, 2))
    for neurons in (6, 7):
        (event,) = adapt(ctx, Adaptation(build("grow", "half_layer", {"draws": 3}), All(), 1)).events
        module = ctx.network.module
        assert event.size_after == neurons and module.levels()[0].tolist() == [neurons - 1]
        assert module.connections[:-1, -1].all() and module.out.connections[:, -1].all() and module.connections[-1, :2].all()
        assert not module.connections[-1, 2:].any()
        assert event.parameters_after - event.parameters_before == 2 + 1 + (neurons - 1) + 1


def test_the_best_of_its_draws_is_kept_and_the_loss_is_the_one_said():
    start = regression()
    before = loss_of(start)
    ctx = copied(start)
    (event,) = adapt(ctx, Adaptation(build("grow", "half_layer", {"num_batches": 1}), All(), 1)).events
    assert loss_of(ctx) == pytest.approx(before - event.predicted, rel=1e-9)
    element = start.network.element("weight:0")
    site = dag_site_of(start.network, element)
    trial, generator = WithNeuron(start, element, site, 1), torch.Generator().manual_seed(0)
    losses = [float(trial.loss(random_neuron(site, generator))) for _ in range(100)]
    assert loss_of(ctx) == pytest.approx(min(losses), rel=1e-9) and min(losses) < 0.7 * sum(losses) / 100
    new = ctx.network.module.weight[3, :2].detach().abs()
    assert float(new.max()) <= 1 and loss_of(start) == before


def test_the_schur_choice_is_the_newton_step_of_all_weights_together():
    ctx = regression()
    element = ctx.network.element("weight:0")
    site = dag_site_of(ctx.network, element)
    (neuron,) = ranked_neurons(ctx, site, 1, spread=6.0, damping=1e-9, num_batches=1)
    grown = copied(ctx)
    zero = torch.zeros_like
    tiny = neuron.to_neurons * 0 + 1e-9
    parts = {"from_inputs": neuron.from_inputs, "from_neurons": neuron.from_neurons, "bias": neuron.bias}
    apply(grown.network, site.plan(element, Neuron(**parts, to_neurons=tiny, to_outputs=zero(neuron.to_outputs)), None))
    flat = Flat.of(grown.network)
    quadratic = gauss_newton(grown, flat, 1)
    shapes = {n: torch.zeros(m.shape) for n, m in flat.masks.items()}
    shapes["weight"][3, :2], shapes["bias"][3] = 1, 1
    free = (flat.gather(shapes) == 0).nonzero().flatten()
    new = {n: torch.zeros(m.shape) for n, m in flat.masks.items()}
    new["weight"][:3, 5], new["out.weight"][:, 5] = 1, 1
    mine = flat.gather(new)[free] > 0
    curvature = quadratic.curvature[free][:, free]
    curvature += torch.diag(1e-9 * curvature.diagonal())
    curvature[mine.nonzero().flatten(), mine.nonzero().flatten()] *= 1.001
    step = -torch.linalg.solve(curvature, quadratic.gradient[free])[mine]
    assert torch.allclose(step, torch.cat([neuron.to_neurons, neuron.to_outputs]), rtol=1e-3)


def test_the_schur_choice_starts_lower_than_before_and_than_random_draws():
    start, began = regression(), {}
    for choice in ("random", "schur"):
        for seed in range(3):
            ctx = copied(start, seed)
            adapt(ctx, Adaptation(build("grow", "half_layer", {"choice": choice, "num_batches": 1}), All(), 1))
            began.setdefault(choice, []).append(loss_of(ctx))
    assert max(began["schur"]) < 0.95 * loss_of(start) and max(began["schur"]) < min(began["random"]), (loss_of(start), began)


def test_other_networks_are_refused_with_a_reason():
    ctx = mixed()
    method = build("grow", "half_layer", {})
    assert "single connections" in method.accepts(ctx, ctx.network.element("conv.weight:0"))
    small = regression()
    schur = build("grow", "half_layer", {"choice": "schur", "largest": 5})
    assert "too large" in schur.accepts(small, small.network.element("weight:0"))
