"""Networks with gates on their units, trained without a trial."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from coppice.methods.adaptation.adapt import Adaptation, AdaptResult, adapt
from coppice.methods.growth.gated.companion import GateCompanion
from coppice.methods.method import Context, Method
from coppice.methods.plan import Plan
from coppice.methods.selection import All, Selection
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import context, everything, mixed
from coppice.testing.method import GrowthContract, MethodContract, PruningContract

ADVISED = Amount(0, "advised")


def gated(ctx: Context, method: Method) -> Context:
    """With the method's companion, whose gates are closed."""
    companion = method.companion(ctx.network)
    assert isinstance(companion, GateCompanion)
    companion.begin(ctx.network)
    return replace(ctx, companion=companion)


def regression(*widths: int, samples: int = 40, seed: int = 0) -> Context:
    """A smooth function of two inputs, a tanh network with these hidden widths, float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [2, *widths, 1]
        layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())][:-1]
        inputs = torch.rand(samples, 2, dtype=torch.float64) * 4 - 2
        targets = (inputs[:, :1] * 2).sin() + inputs[:, 1:].square() / 2
        return context(nn.Sequential(*layers).double(), inputs, targets, loss=nn.functional.mse_loss)


def step(ctx: Context, optimizer: torch.optim.Optimizer) -> float:
    """One training step as a trial takes it; returns the loss before."""
    inputs, targets = next(iter(ctx.batches(1)))
    network, companion = ctx.network, ctx.companion
    optimizer.zero_grad()
    loss = ctx.loss(network.module(inputs), targets)
    loss.backward()
    companion.after_backward(network)
    companion.before_step(network, optimizer)
    optimizer.step()
    companion.after_step(network, optimizer)
    return float(loss.detach())


def act(ctx: Context, method: Method, optimizer: torch.optim.Optimizer) -> AdaptResult:
    followers: list[Follower] = [OptimizerFollower(optimizer, ctx.network.module), ctx.companion]
    return adapt(ctx, Adaptation(method, All(), ADVISED), followers)


def outputs(ctx: Context) -> Tensor:
    with torch.no_grad():
        return ctx.network.module(next(iter(ctx.batches(1)))[0])


def still(ctx: Context, method: Method) -> Tensor:
    """The outputs after one step in which neither weights nor the trained numbers move: gates are opened and closed again."""
    again = copy.deepcopy(ctx.companion)
    again.gate = replace(again.gate, lr=1e-30)
    step(replace(ctx, companion=again), torch.optim.SGD(ctx.network.module.parameters(), 0.0))
    return outputs(ctx)


class GatedContract(MethodContract):
    """The contract, with the companion told of every change."""

    amount = ADVISED
    start: dict[str, float] = {}

    def of(self) -> Method:
        raise NotImplementedError("every subclass gives its own method")

    def context(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
        return gated(mixed(dtype, seed), self.of())

    def act(self, ctx: Context, method: Method, selection: Selection | None = None, followers: Sequence[Follower] = (), **kwargs):
        return super().act(ctx, method, selection, followers=[*followers, ctx.companion], **kwargs)

    def plans(self, ctx: Context, method: Method) -> list[Plan]:
        plans: list[Plan] = []
        adapt(ctx, Adaptation(method, All(), self.amount), defer=lambda plan: plans.append(plan) or True)
        return plans


class GatedGrowthContract(GatedContract, GrowthContract):
    """New units stand behind gates that are shut."""


class GatedPruningContract(GatedContract, PruningContract):
    """What goes was behind gates that are shut."""

    measures = False

    def test_the_optimizer_follows_and_trains_everything(self, method):
        ctx = self.context()
        module = ctx.network.module
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        for _ in range(2):
            step(ctx, optimizer)
        assert self.act(ctx, method, followers=[OptimizerFollower(optimizer, module)]).events
        before = everything(module)
        for _ in range(2):
            step(ctx, optimizer)
        assert all(not torch.equal(before[n], p) for n, p in module.named_parameters())
        assert all(torch.isfinite(p).all() for p in module.parameters())

    def test_less_is_left(self, method):
        events = self.act(self.context(), method).events
        assert events
        for event in events:
            assert event.kind == "prune" and event.parameters_after < event.parameters_before
            assert event.function_change <= 1e-6 * event.function_scale
