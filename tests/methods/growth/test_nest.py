"""Neurons from the bridging matrix lower the loss at once, by what was predicted; feature maps are the best of the draws."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.measures.site import site_of
from coppice.methods.measures.statistics import mean_loss
from coppice.methods.selection import All
from coppice.testing.examples import context


def linear(act=nn.ReLU, seed=0, loss=F.cross_entropy):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 10), act(), nn.Linear(10, 4)).double()
    return context(module, torch.randn(32, 6, dtype=torch.float64), torch.randint(4, (32,)), seed, loss)


def convolutional(seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)).double()
    return context(module, torch.randn(12, 2, 6, 6, dtype=torch.float64), torch.randint(3, (12,)), seed)


def measured(ctx, count=8, name="0.weight:0", **arguments):
    method, element = build("grow", "nest", arguments), ctx.network.element(name)
    assert method.accepts(ctx, element) is None
    return method, element, method.measure(ctx, [element], {name: count})


def bridging(ctx):
    """-E[x g^T] from autograd alone."""
    inputs, targets = next(iter(ctx.batches(1)))
    output = ctx.network.module(inputs)
    (g,) = torch.autograd.grad(F.cross_entropy(output, targets, reduction="sum"), output)
    return -(inputs.T @ g) / len(inputs)


def test_a_single_pair_makes_the_neuron_of_the_largest_entry():
    ctx = linear()
    _, _, measurement = measured(ctx, 4, share=1 / 24, strength=0.3)
    b = bridging(ctx)
    i, j = divmod(int(b.abs().argmax()), 4)
    weights = ctx.network.module[0].weight.detach(), ctx.network.module[2].weight.detach()
    data = measurement.data["0.weight:0"]
    assert len(data["gains"])
    for row, column in zip(data["incoming"], data["outgoing"], strict=True):
        assert row.nonzero().tolist() == [[i]] and column.nonzero().tolist() == [[j]]
        assert float(row.abs().sum()) == pytest.approx(0.3 * float(weights[0].abs().mean()))
        assert float(column.abs().sum()) == pytest.approx(0.3 * float(weights[1].abs().mean()))
        assert float(row[i] * column[j]) * float(b[i, j]) > 0


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_product_of_both_sides_is_the_bridging_matrix_on_average(share):
    ctx = linear()
    method = build("grow", "nest", {"share": share})
    b = bridging(ctx)
    kept = b.abs() >= b.abs().flatten().sort(descending=True).values[round(share * b.numel()) - 1]
    site = site_of(ctx.network, ctx.network.element("0.weight:0"))
    rows, columns = method._neurons(ctx, site, b, 4000)
    products = torch.einsum("ni,nj->nij", rows, columns)
    assert F.cosine_similarity(products.mean(0).flatten(), (b * kept).flatten(), 0) > 0.98
    assert torch.equal((rows != 0).any(0), kept.any(1)) and torch.equal((columns != 0).any(0), kept.any(0))
    assert torch.allclose(rows.abs().sum(1) / (rows != 0).sum(1), 0.5 * ctx.network.module[0].weight.detach().abs().mean())


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_the_loss_is_lower_at_once_by_what_is_predicted(act):
    for seed in range(3):
        ctx = linear(act, seed)
        method, element, measurement = measured(ctx, strength=1e-2)
        before = float(mean_loss(ctx, 1))
        assert (measurement.scores[element.name] > 0).all() and (measurement.scores[element.name].diff() <= 0).all()
        count = len(measurement.scores[element.name])
        event = apply(ctx.network, method.plan(ctx, element, range(count), measurement))
        decrease = before - float(mean_loss(ctx, 1))
        assert decrease > 0 and decrease == pytest.approx(event.predicted, rel=0.05), seed


def test_at_the_paper_s_strength_a_neuron_lowers_the_loss_more_than_a_random_one():
    lower, other = [], []
    for seed in range(5):
        ctx = linear(nn.ReLU, seed)
        method, element, measurement = measured(ctx, strength=0.4)
        before = float(mean_loss(ctx, 1))
        drawn = copy.deepcopy(ctx.network)
        apply(ctx.network, method.plan(ctx, element, [0], measurement))
        lower.append(before - float(mean_loss(ctx, 1)))
        random = build("grow", "random", {"zero": "none", "init": "normal", "scale": 0.4})
        apply(drawn, random.plan(replace(ctx, network=drawn), element, [0], random.measure(ctx, [element], {})))
        other.append(before - float(mean_loss(replace(ctx, network=drawn), 1)))
    assert min(lower) > 0 and sum(lower) > 3 * max(0.0, sum(other)), (lower, other)


@pytest.mark.parametrize("element", ["0.weight:0", "2.weight:0"])
def test_feature_maps_lower_the_loss_and_more_draws_lower_it_more(element):
    sums = {1: 0.0, 12: 0.0}
    for seed, draws in itertools.product(range(4), sums):
        ctx = convolutional(seed)
        method, found_element, measurement = measured(ctx, name=element, draws=draws)
        assert len(measurement.scores[element]) == 0
        before = float(mean_loss(ctx, 1))
        event = apply(ctx.network, method.plan(ctx, found_element, range(2), measurement))
        decrease = before - float(mean_loss(ctx, 1))
        assert decrease == pytest.approx(event.predicted, rel=1e-6) and decrease > 0
        sums[draws] += decrease
    assert sums[12] > 1.3 * sums[1], sums


def test_nothing_is_offered_where_there_is_no_gradient():
    ctx = linear(loss=lambda output, target: output.sum() * 0)
    result = adapt(ctx, Adaptation(build("grow", "nest", {}), All(), 0.5))
    assert not result.events and "nothing to offer" in " ".join(result.skipped)


def test_the_promise_is_none_and_several_elements_grow_in_one_step():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    ctx = context(module, torch.randn(20, 5, dtype=torch.float64), torch.randint(3, (20,)))
    method = build("grow", "nest", {"strength": 0.05})
    before = float(mean_loss(ctx, 1))
    result = adapt(ctx, Adaptation(method, All(), 0.3))
    assert not method.promises() and len(result.events) == 2
    assert float(mean_loss(ctx, 1)) < before
