"""Cascade correlation: S climbs and is the largest of the pool, the residual shrinks, frozen neurons stay."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.growth.cascade.candidate_pool import CandidatePool
from coppice.methods.measures.dag_site import dag_site_of
from coppice.methods.method import Context
from coppice.methods.selection import All
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import mixed
from coppice.testing.method import GrowthContract
from tests.support.single_connections import classification, loss_of, regression, train


@pytest.mark.parametrize("arguments", [{"steps": 3, "pool": 2}, {"steps": 2, "outgoing": "fitted"}], ids=str, scope="class")
class TestContract(GrowthContract):
    measures = True

    def context(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
        return classification(dtype, seed)

    @pytest.fixture
    def method(self, arguments):
        return build("grow", "cascade", arguments | {"num_batches": 1})

    def test_measuring_and_planning_touch_nothing(self, method):
        ctx = self.context()
        before = {n: t.clone() for n, t in ctx.network.module.state_dict().items()}
        rng = torch.get_rng_state()
        assert self.plans(ctx, method)
        assert all(torch.equal(t, before[n]) for n, t in ctx.network.module.state_dict().items())
        assert torch.equal(rng, torch.get_rng_state()) and ctx.network.module.training


def copied(ctx: Context) -> Context:
    return Context(copy.deepcopy(ctx.network), ctx.batches, ctx.loss, torch.Generator().manual_seed(0))


def pool_of(ctx: Context) -> CandidatePool:
    site = dag_site_of(ctx.network, ctx.network.element("weight:0"))
    return CandidatePool(ctx, site, 1)


def correlation(ctx: Context, row: torch.Tensor, bias: torch.Tensor) -> float:
    """S as the paper writes it, over the number of samples."""
    x, y = next(iter(ctx.batches(1)))
    module = ctx.network.module
    with torch.no_grad():
        seen = torch.cat([x, module.neurons(x)], 1)
        v, e = torch.tanh(seen @ row + bias), 2 * (module(x) - y)
    return float((((v - v.mean())[:, None] * (e - e.mean(0))).sum(0).abs().sum()) / len(x))


def test_s_is_that_of_the_paper_and_its_slope_that_of_autograd():
    ctx = regression()
    torch.manual_seed(1)
    rows, biases = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    covariances, slopes = pool_of(ctx).covariance(rows, biases)
    for k in range(3):
        assert float(covariances[k].abs().sum()) == pytest.approx(correlation(ctx, rows[k], biases[k]), rel=1e-9)
    moved = rows.clone()
    moved[1, 2] += 1e-6
    numeric = (pool_of(ctx).covariance(moved, biases)[0][1] - covariances[1]) / 1e-6
    assert torch.allclose(numeric, slopes[1, :, 2], atol=1e-6) and float(slopes[1, :, 2].abs()) > 1e-3


def test_the_chosen_candidate_follows_the_error_better_than_any_random_one():
    ctx = regression()
    method = build("grow", "cascade", {"num_batches": 1, "steps": 60})
    element = ctx.network.element("weight:0")
    measured = method.measure(ctx, [element], {element.name: 1})
    data, chosen = measured.data[element.name], float(measured.scores[element.name][0])
    assert chosen == pytest.approx(correlation(ctx, data["row"], data["bias"]), rel=1e-9)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(200, 6, generator=generator, dtype=torch.float64) * 2 - 1
    others = pool_of(ctx).covariance(drawn[:, :5], drawn[:, 5])[0].abs().sum(1)
    assert chosen > 1.2 * float(others.max())


def test_the_residual_shrinks_neuron_by_neuron_when_only_outputs_are_trained():
    ctx = regression((1,))
    method = build("grow", "cascade", {"num_batches": 1, "steps": 40})
    losses = [loss_of(ctx)]
    for neurons in (2, 3, 4):
        (event,) = adapt(ctx, Adaptation(method, All(), 1)).events
        assert event.function_change <= 1e-12 and event.size_after == neurons
        assert len(ctx.network.module.levels()) == neurons, "each sees all those before it"
        train(ctx, 60, only="out.")
        losses.append(loss_of(ctx))
    assert all(b < 0.99 * a for a, b in itertools.pairwise(losses)) and losses[-1] < 0.8 * losses[0], losses


def test_fitted_outgoing_weights_lower_the_loss_by_what_is_said():
    ctx = regression()
    before = loss_of(ctx)
    (event,) = adapt(
        ctx, Adaptation(build("grow", "cascade", {"num_batches": 1, "steps": 30, "outgoing": "fitted"}), All(), 1)
    ).events
    assert event.predicted > 0.01 * before
    assert before - loss_of(ctx) == pytest.approx(event.predicted, rel=1e-9)


@pytest.mark.parametrize("freeze", [True, False])
def test_what_goes_into_a_frozen_neuron_stays(freeze):
    ctx = regression()
    method = build("grow", "cascade", {"num_batches": 1, "steps": 5, "freeze": freeze, "outgoing": "fitted"})
    companion = method.companion(ctx.network)
    module = ctx.network.module
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    followers = [OptimizerFollower(optimizer, module), *([companion] if companion else [])]
    assert adapt(ctx, Adaptation(method, All(), 1), followers).events
    if companion is not None:
        again = method.companion(ctx.network)
        again.load(companion.tensors())
        companion = again
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    x, y = next(iter(ctx.batches(1)))
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(module(x), y).backward()
        if companion is not None:
            companion.after_backward(ctx.network)
            companion.before_step(ctx.network, optimizer)
        optimizer.step()
        if companion is not None:
            companion.after_step(ctx.network, optimizer)
    assert torch.equal(module.weight[3], before["weight"][3]) == freeze
    assert torch.equal(module.bias[3], before["bias"][3]) == freeze
    assert (module.weight[:3, :2] != before["weight"][:3, :2]).all() and (module.out.weight != before["out.weight"]).all()


def test_other_networks_are_refused_with_a_reason():
    ctx = mixed()
    assert "single connections" in build("grow", "cascade", {}).accepts(ctx, ctx.network.element("conv.weight:0"))
