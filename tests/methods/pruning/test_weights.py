"""What the scores of single weights claim: first and second order, and which layers survive at high sparsity."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.pruning.lamp import lamp
from coppice.methods.pruning.synflow import synaptic_flow
from coppice.methods.selection import All, GlobalRanking
from coppice.testing.examples import context, mixed

NONE_MUST_STAY = Scope(minimum=0)


def scores(ctx, name, arguments=None):
    """At each tensor's shape, by name; nothing must be masked yet."""
    elements = [e for e in ctx.network.elements() if e.level == "weight"]
    by_name = build("prune", name, arguments or {}).measure(ctx, elements, {e.name: e.size for e in elements}).scores
    return {n: s.view(ctx.network.module.get_parameter(n).shape) for n, s in by_name.items()}


def pruned(ctx, name, fraction, arguments=None, selection=None):
    """Part of each tensor's weights that is left."""
    adapt(ctx, Adaptation(build("prune", name, arguments or {}), selection or GlobalRanking(), fraction, NONE_MUST_STAY))
    return {n: float(m.float().mean()) for n, m in ctx.network.masks.items()}


@pytest.fixture(scope="module")
def uneven():
    """An MLP at He initialisation, wide at first and narrow at last, whose third layer has weights 20 times too small."""
    torch.manual_seed(0)
    widths = (32, 100, 100, 100, 10)
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())][:-1]
    module = nn.Sequential(*layers)
    for m in module:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight)
    with torch.no_grad():
        module[4].weight.mul_(0.05)
    return context(module, torch.randn(64, 32), torch.randint(10, (64,)))


def reaches(ctx):
    """Whether the outputs still depend on the inputs, along paths of weights that are not masked."""
    flow = torch.ones(1, 32)
    for mask in ctx.network.masks.values():
        flow = flow @ mask.float().T
    return bool(flow.any())


class TestHighSparsity:
    def test_magnitude_empties_a_layer_of_small_weights(self, uneven):
        ctx = copy.deepcopy(uneven)
        assert pruned(ctx, "magnitude_weights", 0.99)["4.weight"] == 0 and not reaches(ctx)

    def test_lamp_keeps_every_layer_though_one_is_small(self, uneven):
        ctx = copy.deepcopy(uneven)
        left = pruned(ctx, "lamp", 0.99)
        total = {n: m.numel() for n, m in ctx.network.masks.items()}
        assert min(left.values()) > 0.001 and left["4.weight"] * total["4.weight"] > 10

    def test_synflow_keeps_every_layer_and_the_paths_through_them(self, uneven):
        ctx = copy.deepcopy(uneven)
        left = pruned(ctx, "synflow", 0.99)
        kept = sum(int(m.sum()) for m in ctx.network.masks.values())
        assert kept == pytest.approx(0.01 * sum(m.numel() for m in ctx.network.masks.values()), abs=1)
        assert min(left.values()) > 0.001 and reaches(ctx)

    def test_rounds_matter(self, uneven):
        """One shot at the same density keeps fewer units in the same number of weights: the paper's reason to iterate."""
        paths = {}
        for rounds in (1, 100):
            ctx = copy.deepcopy(uneven)
            pruned(ctx, "synflow", 0.998, {"rounds": rounds, "density": 0.002})
            paths[rounds] = reaches(ctx)
        assert paths == {1: False, 100: True}


class TestLamp:
    def test_by_hand(self):
        weight = torch.tensor([[3.0, -1.0], [2.0, 9.0]])
        mask = torch.tensor([[True, True], [True, False]])
        expected = torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(lamp(weight, mask), expected)

    def test_zeros_score_zero(self):
        assert not lamp(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)).any()

    def test_the_scale_of_a_tensor_does_not_matter(self):
        ctx = mixed()
        before = scores(ctx, "lamp")
        with torch.no_grad():
            ctx.network.module.fc1.weight.mul_(64)
        assert all(torch.equal(s, before[n]) for n, s in scores(ctx, "lamp").items())


class TestSnip:
    def test_is_the_derivative_by_a_factor_on_the_weight(self):
        """Removal changes the loss to first order by the derivative with respect to a factor; here by central differences."""
        ctx = mixed(torch.float64)
        module = ctx.network.module.eval()
        inputs, targets = next(iter(ctx.batches(1)))
        importance, step = scores(ctx, "snip"), 1e-5
        for name, score in importance.items():
            weight = module.get_parameter(name)
            flat = weight.data.view(-1)
            for i in range(0, len(flat), 5):
                old, losses = float(flat[i]), []
                for factor in (1 + step, 1 - step):
                    flat[i] = old * factor
                    with torch.no_grad():
                        losses.append(float(F.cross_entropy(module(inputs), targets)))
                flat[i] = old
                assert float(score.view(-1)[i]) == pytest.approx(abs(losses[0] - losses[1]) / (2 * step), abs=1e-8), (name, i)

    def test_the_least_sensitive_weights_go(self):
        ctx = mixed(torch.float64)
        importance = scores(ctx, "snip")
        adapt(ctx, Adaptation(build("prune", "snip", {}), GlobalRanking(), 0.6))
        masks = ctx.network.masks
        gone = torch.cat([importance[n][~masks[n]] for n in importance])
        kept = torch.cat([importance[n][masks[n]] for n in importance])
        assert len(gone) == pytest.approx(0.6 * (len(gone) + len(kept)), abs=1) and gone.max() <= kept.min()


class TestSynFlow:
    def test_flow_is_conserved(self):
        """The scores of each layer sum to R, and those into a unit to those out of it; R is 1^T |W3| |W2| |W1| 1."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))
        ctx = context(module, torch.randn(4, 5), torch.randint(3, (4,)))
        names = [n for n, p in module.named_parameters() if p.dim() == 2]
        flow = synaptic_flow(ctx.network, {n: torch.ones_like(module.get_parameter(n), dtype=torch.bool) for n in names})
        w1, w2, w3 = (module[i].weight.detach().double().abs() for i in (0, 3, 5))
        total = float((w3 @ w2 @ w1).sum())
        assert all(float(s.sum()) == pytest.approx(total, rel=1e-12) for s in flow.values())
        torch.testing.assert_close(flow[names[0]].sum(1), flow[names[1]].sum(0))
        torch.testing.assert_close(flow[names[1]].sum(1), flow[names[2]].sum(0))

    def test_importance_is_the_order_of_the_published_rounds(self):
        """At the density of the last round exactly the weights stay that a plain loop keeps; no data is looked at."""
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(6, 12, bias=False), nn.ReLU(), nn.Linear(12, 8, bias=False), nn.ReLU(), nn.Linear(8, 4))
        ctx = context(module, torch.randn(2, 6), torch.randint(4, (2,)))
        ctx = replace(ctx, batches=lambda count: pytest.fail("data was looked at"))
        weights = [module[i].weight.detach().double().abs() for i in (0, 2, 4)]
        masks, size = [torch.ones_like(w) for w in weights], sum(w.numel() for w in weights)
        for k in range(1, 11):
            leaves = [(w * m).requires_grad_() for w, m in zip(weights, masks, strict=True)]
            (leaves[2] @ leaves[1] @ leaves[0]).sum().backward()
            flat = torch.cat([(w * w.grad).detach().view(-1) for w in leaves])
            active = torch.cat([m.view(-1) for m in masks]).bool()
            keep = torch.where(active, flat, -1.0).argsort(descending=True)[: math.ceil(size * 0.1 ** (k / 10))]
            chosen = torch.zeros(size).index_fill_(0, keep, 1.0)
            masks = [c.view(w.shape) for c, w in zip(chosen.split([w.numel() for w in weights]), weights, strict=True)]
        importance = scores(ctx, "synflow", {"rounds": 10, "density": 0.1})
        ranks = torch.cat([s.view(-1) for s in importance.values()])
        assert torch.equal(ranks.argsort(descending=True)[: len(keep)].sort().values, keep.sort().values)


def test_random_weights_and_units_follow_the_generator_and_spread():
    for name, selection in (("random_weights", All()), ("random", All())):
        kept = []
        for seed in (1, 1, 2):
            ctx = mixed(seed=seed)
            events = adapt(ctx, Adaptation(build("prune", name, {}), selection, 0.5)).events
            kept.append(str([e.units for e in events]) + str({n: m.tolist() for n, m in ctx.network.masks.items()}))
        assert kept[0] == kept[1] != kept[2], name


def test_equal_weights_go_by_chance():
    ctx = context(nn.Linear(10, 10), torch.randn(2, 10), torch.randint(10, (2,)))
    nn.init.ones_(ctx.network.module.weight)
    adapt(ctx, Adaptation(build("prune", "rigl_drop", {}), All(), 0.5))
    rows = ctx.network.masks["weight"].sum(1)
    assert int(rows.sum()) == 50 and int(rows.min()) > 0


def rank_correlation(a, b):
    ranks = [torch.as_tensor(v, dtype=torch.float64).argsort().argsort().double() for v in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


class TestFisher:
    def trained(self):
        """Inputs of unlike scales, noisy labels, a tanh network near its minimum, float64."""
        torch.manual_seed(0)
        x = torch.randn(600, 4, dtype=torch.float64) * torch.tensor([0.4, 1.0, 2.5, 1.0])
        logits = torch.stack([x[:, 0] * x[:, 1], x[:, 2] / 2, x[:, 3].abs()], 1)
        y = torch.distributions.Categorical(logits=logits).sample()
        module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in module.parameters())
            (F.cross_entropy(module(x), y) + 5e-4 * penalty).backward()
            optimizer.step()
        return context(module, x, y)

    def test_predicts_what_each_removal_costs(self):
        ctx = self.trained()
        module, (inputs, targets) = ctx.network.module, next(iter(ctx.batches(1)))
        predicted, measured, sizes = [], [], []
        with torch.no_grad():
            base = float(F.cross_entropy(module(inputs), targets))
            for name, score in scores(ctx, "fisher_weights", {"num_batches": 1}).items():
                flat = module.get_parameter(name).view(-1)
                for i, value in enumerate(flat.tolist()):
                    flat[i] = 0
                    measured.append(float(F.cross_entropy(module(inputs), targets)) - base)
                    flat[i] = value
                    predicted.append(float(score.view(-1)[i]))
                    sizes.append(abs(value))
        assert rank_correlation(predicted, measured) > 0.95
        assert rank_correlation(sizes, measured) < 0.9
        assert sum(predicted) == pytest.approx(sum(measured), rel=0.2)

    def test_is_the_mean_of_squares_of_single_samples(self):
        ctx = mixed(torch.float64)
        module, (inputs, targets) = ctx.network.module, next(iter(ctx.batches(1)))
        other = (inputs.flip(0)[:3] * 2, targets[:3])
        ctx = replace(ctx, batches=lambda count: [(inputs, targets), other][:count])
        importance, module, total = scores(ctx, "fisher_weights", {"num_batches": 2}), module.eval(), 0
        for x, y in [*zip(inputs, targets, strict=True), *zip(*other, strict=True)]:
            gradient = torch.autograd.grad(F.cross_entropy(module(x[None]), y[None]), module.conv.weight)[0]
            total = total + gradient.square()
        torch.testing.assert_close(importance["conv.weight"], module.conv.weight.detach().square() * total / 11 / 2)

    def test_a_plan_predicts_the_sum_of_its_scores(self):
        ctx = mixed(torch.float64)
        importance = scores(ctx, "fisher_weights")
        events = adapt(ctx, Adaptation(build("prune", "fisher_weights", {}), All(), 0.3)).events
        assert len(events) == len(importance)
        for event in events:
            gone = importance[event.element][~ctx.network.masks[event.element]]
            assert event.predicted == pytest.approx(float(gone.sum()), rel=1e-9)
