"""What triggers are told about a live network."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.candidates import Scope
from coppice.methods.adaptation.signals import SIGNALS, measure_signals
from coppice.methods.catalog import build
from coppice.methods.growth.random import Random
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.method import Measurement
from coppice.testing.examples import context, everything, mixed, same


@dataclass(frozen=True)
class Told(Random):
    """Says what it is given, in turn for each element."""

    scores: tuple = ()
    advised: tuple = ()
    silent: bool = False
    advises = True

    def measure(self, context, elements, most):
        if self.silent:
            raise NonFiniteStatistics("gradients must be finite")
        names = [e.name for e in elements]
        return Measurement(
            {n: torch.tensor(s) for n, s in zip(names, self.scores, strict=False)},
            advised=dict(zip(names, self.advised, strict=False)), signals={"eta": 0.5})  # fmt: skip


def test_scores_of_all_elements():
    found = measure_signals(mixed(), Told(scores=([3.0, 1.0], [2.5, 2.0]), advised=(2, 5)), Scope(), ("scores",))
    assert found == {"score_best": 3.0, "score_worst": 1.0, "score_sum": 4.5, "signal_eta": 0.5, "advised": 7.0, "offered": 2.0}


def test_a_method_that_offers_nothing_or_predicts_nothing_is_told_apart():
    assert measure_signals(mixed(), Told(), Scope(), ("scores",)) == {"signal_eta": 0.5, "advised": 0.0, "offered": 0.0}
    silent = measure_signals(mixed(), build("grow", "random", {}), Scope(), ("scores",))
    assert silent["offered"] > 0 and "score_best" not in silent


@pytest.mark.parametrize(("method", "rules"), [(Told(silent=True), Scope()), (Told(), Scope(elements=("none.*",)))])
def test_empty_where_nothing_can_be_measured(method, rules):
    assert measure_signals(mixed(), method, rules, ("scores",)) == {}


def test_gradmax_reports_its_largest_squared_singular_value():
    ctx = mixed()
    method = build("grow", "gradmax", {})
    found = measure_signals(ctx, method, Scope(), ("scores",))
    elements = [e for e in ctx.network.elements() if e.permissible and method.accepts(ctx, e) is None]
    scores = method.measure(ctx, elements, {e.name: e.size * 64 for e in elements}).scores
    assert found["score_best"] == max(float(s.max()) for s in scores.values())


def classified(hits: int, batch_norm: bool = True):
    """A network that gives `hits` of 10 targets right in eval mode, and none when its BatchNorm normalises by batch."""
    module = nn.Sequential(nn.BatchNorm1d(2) if batch_norm else nn.Identity(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    inputs = torch.tensor([[5.0, 1.0]] * 10)
    return context(module, inputs, torch.tensor([0] * hits + [1] * (10 - hits)))


@pytest.mark.parametrize("hits", [0, 7, 10])
def test_training_accuracy_is_that_in_eval_mode(hits):
    ctx = classified(hits)
    before, rng = everything(ctx.network.module), torch.get_rng_state()
    method = build("prune", "magnitude", {})
    assert SIGNALS["train_accuracy"](ctx, method, []) == {"train_accuracy": hits / 10}
    assert same(before, everything(ctx.network.module)) and ctx.network.module.training
    assert torch.equal(rng, torch.get_rng_state())


def test_regression_has_r2():
    torch.manual_seed(0)
    inputs = torch.randn(50, 3)
    targets = inputs @ torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]]) + 0.5 * torch.randn(50, 2)
    ctx = context(nn.Linear(3, 2), inputs, targets, loss=F.mse_loss)
    found = SIGNALS["train_accuracy"](ctx, build("grow", "random", {}), [])
    output = ctx.network.module(inputs).detach()
    wanted = 1 - (output - targets).square().sum() / (targets - targets.mean(0)).square().sum()
    assert found == {"train_r2": pytest.approx(float(wanted), abs=1e-6)}


def test_targets_that_do_not_fit_are_an_error():
    ctx = context(nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5), loss=F.mse_loss)
    with pytest.raises(ValueError, match=r"class numbers, or outputs.*\(5, 2\) and \(5,\)"):
        SIGNALS["train_accuracy"](ctx, build("grow", "random", {}), [])


def test_outputs_that_are_not_finite_are_no_measurement():
    ctx = mixed()
    with torch.no_grad():
        ctx.network.module.fc2.bias.fill_(float("nan"))
    assert measure_signals(ctx, build("grow", "random", {}), Scope(), ("train_accuracy",)) == {}
