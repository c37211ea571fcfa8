"""One synapse at a time: the right candidates, the best trial taken over with its weights, a stop at the tolerance."""

import copy

import pytest
import torch

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.method import Context
from coppice.methods.pruning.one_synapse.method import OneSynapse
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.selection.amount import Amount
from tests.support.single_connections import loss_of, regression, train

ADVISED = Amount(0, "advised")


def copied(ctx: Context) -> Context:
    return Context(copy.deepcopy(ctx.network), ctx.batches, ctx.loss, torch.Generator().manual_seed(0))


def method(**arguments) -> OneSynapse:
    return build("prune", "one_synapse", {"num_batches": 1} | arguments)


def test_candidates_are_smallest_beside_the_largest_of_their_neuron():
    ctx = regression()
    with torch.no_grad():
        module = ctx.network.module
        module.weight[0, :2] = torch.tensor([10.0, 0.5])
        module.weight[1, :2] = torch.tensor([0.4, 0.39])
        module.weight[2, :2] = torch.tensor([0.001, 0.0009])
        module.out.weight[:] = torch.tensor([[1.0, 0.9, 0.8, 0.7, 0.2]])
    places = method(candidates=3)._smallest(ctx, ["weight", "out.weight"])
    assert places == [("weight", 1), ("out.weight", 4), ("out.weight", 3)], "0.05, 0.2, 0.7"
    ctx.network.masks["weight"][0, 1] = False
    assert method(candidates=1)._smallest(ctx, ["weight", "out.weight"]) == [("out.weight", 4)]


def test_the_event_is_the_best_of_all_trials_done_by_hand():
    ctx = regression((4,))
    before = loss_of(ctx)
    losses = {}
    chosen = method(candidates=4, trials=4, steps=8, tolerance=10.0)
    for name, position in chosen._smallest(ctx, ["weight", "out.weight"]):
        trial = copied(ctx)
        trial.network.masks[name].view(-1)[position] = False
        trial.network.module.settle(trial.network.masks)
        train(trial, 8)
        losses[name, position] = loss_of(trial)
    (event,) = adapt(ctx, Adaptation(chosen, GlobalRanking(), ADVISED)).events
    name, position = min(losses, key=losses.get)
    assert event.element == name and not ctx.network.masks[name].view(-1)[position]
    assert event.parameters_before - event.parameters_after == 1
    assert loss_of(ctx) == pytest.approx(min(losses.values()), rel=1e-6)
    assert loss_of(ctx) - before == pytest.approx(event.predicted, rel=1e-9)


def test_retrained_weights_are_handed_over_and_help():
    start, losses = regression((4,)), []
    for steps in (0, 10):
        ctx = copied(start)
        assert adapt(ctx, Adaptation(method(steps=steps, tolerance=10.0), GlobalRanking(), ADVISED)).events
        losses.append(loss_of(ctx))
    assert losses[1] < losses[0]


def test_it_stops_when_the_loss_would_grow_too_much():
    ctx = regression((8,))
    train(ctx, 60)
    start, events = loss_of(ctx), 0
    while events < 40:
        before = loss_of(ctx)
        result = adapt(ctx, Adaptation(method(tolerance=0.05), GlobalRanking(), ADVISED))
        if not result.events:
            break
        events += 1
        assert loss_of(ctx) <= before * 1.05 * (1 + 1e-9)
    assert 3 <= events < 34 and loss_of(ctx) <= start * 1.05**events
    assert "nothing to offer" in result.skipped[0]
    assert not adapt(ctx, Adaptation(method(tolerance=0.05), GlobalRanking(), ADVISED)).events


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_several_synapses_go_in_one_event(optimizer):
    ctx = regression((4,))
    before = loss_of(ctx)
    chosen = method(most=3, tolerance=2.0, optimizer=optimizer)
    (event,) = adapt(ctx, Adaptation(chosen, All(), ADVISED)).events
    assert event.parameters_before - event.parameters_after == 3
    assert loss_of(ctx) - before == pytest.approx(event.predicted, rel=1e-9)
    module = ctx.network.module
    assert not module.weight[~module.connections].any() and not module.out.weight[~module.out.connections].any()
