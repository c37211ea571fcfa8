"""Taylor and Fisher scores: exact where they should be, sums over single samples, and close to the measured rise of the loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.measures import per_sample
from coppice.methods.pruning.bases import factors
from coppice.methods.selection import All
from coppice.testing.examples import context, mixed


def scores(ctx, method, name):
    return method.measure(ctx, [ctx.network.element(name)], {name: 1}).scores[name]


def loss_without(ctx, columns):
    """Rise of the loss, in eval mode, for each column of a consumer that is set to zero."""
    module = copy.deepcopy(ctx.network.module).eval()
    x, y = next(iter(ctx.batches(1)))
    weight = module.get_submodule(columns).weight
    with torch.no_grad():
        whole, rises = ctx.loss(module(x), y), []
        for unit in range(weight.shape[1]):
            kept = weight[:, unit].clone()
            weight[:, unit] = 0
            rises.append(float(ctx.loss(module(x), y) - whole))
            weight[:, unit] = kept
    return torch.tensor(rises, dtype=torch.float64)


def test_first_order_is_exact_where_the_loss_is_linear():
    """Two linear layers and a loss that is linear in the output: the change predicted for each unit is the measured one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    x, y = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    ctx = context(module, x, y, loss=lambda out, target: (out * target).sum(1).mean())
    method = build("prune", "taylor", {"average": "batch"})
    rises = loss_without(ctx, "1")
    assert torch.allclose(scores(ctx, method, "0.weight:0"), rises.abs(), rtol=1e-10)
    (event,) = adapt(ctx, Adaptation(method, All(), 3)).events
    assert event.predicted == pytest.approx(float(rises[list(event.units)].sum()), rel=1e-10)


def by_hand(ctx, tensors):
    """Gradients of single samples by plain backward passes."""
    module, (x, y) = copy.deepcopy(ctx.network.module).eval(), next(iter(ctx.batches(1)))
    named = dict(module.named_parameters())
    samples = []
    for i in range(len(x)):
        samples.append(torch.autograd.grad(ctx.loss(module(x[i : i + 1]), y[i : i + 1]), [named[n] for n in tensors]))
    return [named[n].detach() for n in tensors], [torch.stack(g) for g in zip(*samples, strict=True)]


def test_every_sample_counts_by_itself():
    """The Fisher diagonal is the mean of squares over all samples: neither the square of the mean nor the last sample's."""
    ctx = mixed(torch.float64)
    names = ["conv.weight", "conv.bias", "fc1.weight"]
    (w, b, used), (gw, gb, gu) = by_hand(ctx, names)
    per_weight = (w * gw).square().flatten(2).sum(2) + (b * gb).square() + (used * gu).square().unflatten(2, (8, 4)).sum((1, 3))
    expected = per_weight.mean(0) / 2
    fisher = scores(ctx, build("prune", "fisher", {"form": "weights", "num_batches": 1}), "conv.weight:0")
    assert torch.allclose(fisher, expected, rtol=1e-8)
    assert not torch.allclose(fisher, per_weight[-1] / 2, rtol=0.1)
    factor = (used * gu).unflatten(2, (8, 4)).sum((1, 3))
    assert torch.allclose(scores(ctx, build("prune", "fisher", {}), "conv.weight:0"), factor.square().mean(0) / 2, rtol=1e-8)
    assert torch.allclose(scores(ctx, build("prune", "taylor", {}), "conv.weight:0"), factor.abs().mean(0), rtol=1e-8)
    whole = factor + (w * gw).flatten(2).sum(2) + b * gb
    for average, value in (("samples", whole.abs().mean(0)), ("batch", whole.mean(0).abs())):
        method = build("prune", "taylor", {"form": "group", "average": average})
        assert torch.allclose(scores(ctx, method, "conv.weight:0"), value, rtol=1e-8), average


def test_samples_one_by_one_give_what_samples_together_give(monkeypatch):
    ctx = mixed(torch.float64)
    with monkeypatch.context() as without:
        without.setattr(per_sample, "_one_by_one", None)
        together = list(per_sample.sample_gradients(ctx, ["stem.weight", "fc1.bias"], 1))
    monkeypatch.setattr(per_sample, "_together", lambda *_: None)
    single = list(per_sample.sample_gradients(ctx, ["stem.weight", "fc1.bias"], 1))
    assert together[0]["stem.weight"].shape == (8, 6, 3, 3, 3)
    for name in together[0]:
        assert torch.allclose(together[0][name], single[0][name], rtol=1e-9, atol=1e-12)


def test_inputs_times_their_gradients_are_weights_times_theirs(monkeypatch):
    """One backward for a batch gives what single samples' weight gradients give: residual streams, convolutions, a flatten."""
    ctx = mixed(torch.float64)
    elements = [e for e in ctx.network.elements() if e.level == "channel" and e.permissible]
    method = build("prune", "fisher", {"num_batches": 2})
    with monkeypatch.context() as without:
        without.setattr(factors, "sample_gradients", None)
        fast = method.measure(ctx, elements, {}).scores
    monkeypatch.setattr(factors, "_is_input", lambda network, part: False)
    slow = method.measure(ctx, elements, {}).scores
    assert len(fast) == 4 and "stem.weight:0" in fast
    for name, score in fast.items():
        assert torch.allclose(score, slow[name], rtol=1e-8) and (score > 0).all(), name


class Flat(nn.Module):
    """The second layer sees positions as samples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(F.relu(self.a(x)).flatten(0, 1)).reshape(len(x), -1, 3).mean(1)


def test_layers_that_see_positions_as_samples_are_measured_sample_by_sample():
    torch.manual_seed(0)
    ctx = context(Flat(), torch.randn(9, 5, 4), torch.randint(3, (9,)))
    (_,), (g,) = by_hand(ctx, ["b.weight"])
    expected = (ctx.network.module.b.weight.detach() * g).sum(1).double().square().mean(0) / 2
    assert torch.allclose(scores(ctx, build("prune", "fisher", {}), "a.weight:0"), expected, rtol=1e-4)


class Branching(nn.Module):
    """Its forward looks at the data, which cannot be mapped over samples; one layer is frozen."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6).requires_grad_(False), nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.b(x) if float(x.sum()) > -1 else self.b(-x)


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_forwards_that_look_at_the_data_are_measured_too(name):
    torch.manual_seed(0)
    ctx = context(Branching(), torch.randn(9, 4), torch.randint(3, (9,)))
    assert (scores(ctx, build("prune", name, {}), "a.weight:0") >= 0).all()


def ranks(values):
    return values.argsort().argsort().double()


def rank_correlation(a, b):
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


def trained(seed):
    """A net trained on a teacher's classes; its hidden units differ in what they do, not only in how large they are."""
    torch.manual_seed(seed)
    x = torch.randn(256, 6) * torch.tensor([3.0, 2.0, 1.0, 1.0, 0.3, 0.3])
    y = (torch.tanh(x @ torch.randn(6, 8)) @ torch.randn(8, 3)).argmax(1)
    module = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    return context(module, x, y)


def test_scores_rank_units_as_the_measured_loss_does():
    """Spearman's correlation with the measured rise, mean of 6 nets: Taylor and Fisher above magnitude, all above chance."""
    methods = {
        "magnitude": build("prune", "magnitude", {}),
        "taylor": build("prune", "taylor", {"num_batches": 1}),
        "taylor group": build("prune", "taylor", {"form": "group", "num_batches": 1}),
        "fisher": build("prune", "fisher", {"num_batches": 1}),
        "fisher weights": build("prune", "fisher", {"form": "weights", "num_batches": 1}),
    }
    correlations = {name: [] for name in [*methods, "random"]}
    for seed in range(6):
        ctx = trained(seed)
        rises = loss_without(ctx, "2")
        for name, method in methods.items():
            correlations[name].append(rank_correlation(scores(ctx, method, "0.weight:0"), rises))
        correlations["random"].append(rank_correlation(torch.rand(32), rises))
    mean = {name: sum(values) / len(values) for name, values in correlations.items()}
    for name in ("taylor", "taylor group", "fisher", "fisher weights"):
        assert mean[name] > 0.75 and mean[name] >= mean["magnitude"] > mean["random"] + 0.3, mean
