"""SNFS follows the momentum of dense gradients, NeST the bridging matrix; GraNet prunes and rewires at once."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.sparse.dense_momentum import DenseMomentum
from coppice.methods.measures.connections import exchange
from coppice.methods.plan import GrowPlan, MaskPlan
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.masks import mask_gradients
from coppice.testing.examples import context, mixed
from tests.methods.growth.test_regrow import GRADIENT, WEIGHT, linear, sparse
from tests.methods.pruning.test_movement import moved


class TestSnfs:
    def test_the_companion_sees_dense_gradients_that_the_optimizer_does_not(self):
        ctx = linear(WEIGHT, [1.0, 2.0, 3.0, 4.0], [1.0, -0.5])
        module, gradient = ctx.network.module, torch.tensor(GRADIENT, dtype=torch.float64)
        optimizer = torch.optim.SGD(module.parameters(), 0.0, momentum=0.9)
        companions = [DenseMomentum(0.9), DenseMomentum(0.9, 0.99)]
        inputs, targets = next(iter(ctx.batches(1)))
        for scale in (1.0, -3.0):
            optimizer.zero_grad()
            (scale * ctx.loss(module(inputs), targets)).backward()
            for companion in companions:
                companion.after_backward(ctx.network)
            mask_gradients(ctx.network)
            optimizer.step()
        assert not optimizer.state[module.weight]["momentum_buffer"][~ctx.network.masks["weight"]].any()
        mean = (0.1 * 0.9 * 1 + 0.1 * -3) / (1 - 0.9**2) * gradient
        square = (0.01 * 0.99 * 1 + 0.01 * 9) / (1 - 0.99**2) * gradient.square()
        torch.testing.assert_close(companions[0].direction("weight").double(), mean, rtol=1e-5, atol=0)
        torch.testing.assert_close(companions[1].direction("weight").double(), mean / square.sqrt(), rtol=1e-5, atol=0)
        with_momentum = replace(ctx, companion=companions[0])
        adapt(with_momentum, Adaptation(build("grow", "snfs", {}), All(), 0.5))
        assert ctx.network.masks["weight"].tolist() == [[True, False, True, True], [False, True, False, False]]

    def test_goes_on_from_a_checkpoint_and_follows_surgery(self):
        method = build("grow", "snfs", {"scaled": True})
        ctx = sparse(method)
        again = method.companion(ctx.network)
        again.load({n: t.clone() for n, t in ctx.companion.tensors().items()})
        other = replace(ctx, network=copy.deepcopy(ctx.network), companion=again)
        for c in (ctx, other):
            apply(c.network, GrowPlan("fc1.weight:0", 2), [c.companion])
            moved(c, 2)
        assert ctx.companion.direction("fc1.weight").shape == (9, 32)
        assert again.steps == ctx.companion.steps
        for name in ctx.network.masks:
            assert torch.equal(again.direction(name), ctx.companion.direction(name))

    def test_says_what_is_missing(self):
        method = build("grow", "snfs", {})
        ctx = sparse(method)
        element = ctx.network.element("fc1.weight")
        assert method.accepts(ctx, element) is None
        assert "there is none" in method.accepts(replace(ctx, companion=None), element)
        assert "no training step" in method.accepts(replace(ctx, companion=DenseMomentum(0.9)), element)


class TestNest:
    def test_connections_are_those_of_the_bridging_matrix(self):
        """B = mean over samples of h (-dL/dz)^T, by hand for a linear layer; newborns are `birth` times it."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        ctx = context(module, torch.randn(16, 5, dtype=torch.float64), torch.randint(3, (16,)))
        mask = torch.rand(3, 6) < 0.5
        apply(ctx.network, MaskPlan({"2.weight": mask}))
        inputs, targets = next(iter(ctx.batches(1)))
        with torch.no_grad():
            hidden = module[1](module[0](inputs))
            bridging = (F.one_hot(targets, 3) - module[2](hidden).softmax(1)).T @ hidden / 16
        masked = torch.where(mask, 0.0, bridging.abs()).view(-1)
        chosen = torch.zeros(18, dtype=torch.bool).index_fill_(0, masked.argsort(descending=True)[:4], True).view(3, 6)
        before = module[2].weight.detach().clone()
        method = build("grow", "nest_connections", {"birth": 0.3})
        (event,) = adapt(ctx, Adaptation(method, All(), Amount(4), Scope(elements=("2.weight",)))).events
        assert torch.equal(ctx.network.masks["2.weight"], mask | chosen)
        torch.testing.assert_close(module[2].weight.detach(), before + 0.3 * bridging * chosen)
        assert event.predicted == pytest.approx(0.3 * float(bridging[chosen].square().sum()))
        assert event.parameters_after == event.parameters_before + 4

    def test_the_loss_falls_as_predicted(self):
        method = build("grow", "nest_connections", {"birth": 1e-4})
        ctx = sparse(method, torch.float64)
        inputs, targets = next(iter(ctx.batches(1)))
        module = ctx.network.module.eval()
        with torch.no_grad():
            before = F.cross_entropy(module(inputs), targets)
            events = adapt(ctx, Adaptation(method, All(), 0.5)).events
            fall = float(before - F.cross_entropy(module(inputs), targets))
        assert fall == pytest.approx(sum(e.predicted for e in events), rel=0.02)
        assert build("grow", "nest_connections", {"birth": 0.0}).promises() and not method.promises()


class TestGraNetClaims:
    def test_prunes_to_the_amount_and_rewires_each_tensor(self):
        ctx, plain, bare = mixed(torch.float64), mixed(torch.float64), mixed(torch.float64)
        total = sum(e.size for e in ctx.network.elements() if e.level == "weight")
        adapt(plain, Adaptation(build("prune", "magnitude_weights", {}), GlobalRanking(), 0.5))
        adapt(bare, Adaptation(build("prune", "granet", {"regrow": 0.0}), GlobalRanking(), 0.5))
        elements = [e for e in ctx.network.elements() if e.level == "weight"]
        rigl = build("grow", "rigl", {"replace": False})
        gradients = rigl.candidates(ctx, elements)
        weights = {e.name: ctx.network.module.get_parameter(e.name).detach().clone() for e in elements}
        adapt(ctx, Adaptation(build("prune", "granet", {"regrow": 0.4, "noise": 0.0}), GlobalRanking(), 0.5))
        assert sum(int(m.sum()) for m in ctx.network.masks.values()) == pytest.approx(total / 2, abs=1)
        for name, mask in ctx.network.masks.items():
            magnitude = plain.network.masks[name]
            assert torch.equal(bare.network.masks[name], magnitude)
            num = int(magnitude.sum())
            assert int(mask.sum()) == num
            expected = exchange(magnitude, weights[name].abs(), gradients[name].abs(), int(0.4 * num))
            assert torch.equal(mask, expected)
            torch.testing.assert_close(
                ctx.network.module.get_parameter(name).detach(), torch.where(mask, weights[name], 0.0)
            )
        assert any(not torch.equal(m, plain.network.masks[n]) for n, m in ctx.network.masks.items())
