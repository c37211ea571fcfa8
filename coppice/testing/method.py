"""What every method must keep, whatever it does: subclass the suite of its kind and say in `make` what is tested."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coppice.methods.adaptation.adapt import Adaptation, AdaptResult, adapt
from coppice.methods.method import Context, Method
from coppice.methods.plan import Plan, plan_from_bytes, plan_to_bytes, plan_to_json
from coppice.methods.selection import All, Selection
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.testing.examples import everything, mixed, same


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The gradient that a parameter must have by now."""
    assert parameter.grad is not None
    return parameter.grad


class MethodContract:
    """For growth and pruning alike."""

    amount: float | Amount = 0.5

    def context(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
        """What the method acts on; override it where the method needs another network, masks, an optimizer or a companion."""
        return mixed(dtype, seed)

    def make(self) -> Method:
        """The method under test, as a user would make it: override this."""
        raise NotImplementedError(f"{type(self).__name__} must have a method `make` that returns what is tested.")

    @pytest.fixture
    def method(self) -> Method:
        """What `make` returns, new for each test."""
        return self.make()

    def act(self, ctx: Context, method: Method, selection: Selection | None = None, **kwargs: Any) -> AdaptResult:
        return adapt(ctx, Adaptation(method, selection or All(), self.amount), **kwargs)

    def plans(self, ctx: Context, method: Method) -> list[Plan]:
        plans: list[Plan] = []

        def defer(plan: Plan) -> bool:
            plans.append(plan)
            return True

        adapt(ctx, Adaptation(method, All(), self.amount), defer=defer)
        return plans

    def test_acts_on_every_level_that_this_network_has(self, method: Method) -> None:
        ctx = self.context()
        levels = {e.level for e in ctx.network.elements() if e.permissible and method.accepts(ctx, e) is None}
        acted = {e.level for e in self.act(ctx, method).events}
        assert acted == levels and levels

    def test_measuring_and_planning_touch_nothing(self, method: Method) -> None:
        ctx = self.context()
        module = ctx.network.module
        norm = module.get_submodule("stem_norm").eval()
        F.cross_entropy(module(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
        before, rng = everything(module), torch.get_rng_state()
        gradients = [gradient(p).clone() for p in module.parameters()]
        assert self.plans(ctx, method)
        assert same(before, everything(module))
        assert torch.equal(rng, torch.get_rng_state())
        assert all(torch.equal(g, gradient(p)) for g, p in zip(gradients, module.parameters(), strict=True))
        assert module.training and not norm.training
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())

    def test_the_generator_and_nothing_else_decides(self, method: Method) -> None:
        states = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            ctx = self.context(seed=7)
            self.act(ctx, method)
            states.append(everything(ctx.network.module))
        assert same(*states)

    def test_plans_survive_as_bytes(self, method: Method) -> None:
        for plan in self.plans(self.context(), method):
            again = plan_from_bytes(plan_to_bytes(plan))
            (head, tensors), (head_again, tensors_again) = plan_to_json(plan), plan_to_json(again)
            assert type(again) is type(plan) and head == head_again and same(tensors, tensors_again)

    def test_the_optimizer_follows_and_trains_everything(self, method: Method) -> None:
        ctx = self.context()
        module = ctx.network.module
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        inputs, targets = next(iter(ctx.batches(1)))
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs), targets).backward()
            optimizer.step()
        assert self.act(ctx, method, followers=[OptimizerFollower(optimizer, module)]).events
        before = everything(module)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs), targets).backward()
            optimizer.step()
        assert all(not torch.equal(before[n], p) for n, p in module.named_parameters())
        assert all(torch.isfinite(p).all() for p in module.parameters())

    def test_the_smaller_network_still_runs_and_can_be_changed_again(self, method: Method) -> None:
        ctx = self.context()
        for _ in range(2):
            self.act(ctx, method)
        assert ctx.network.module(torch.randn(3, 3, 8, 8)).shape == (3, 4)

    def test_acts_under_autocast_to_bfloat16(self, method: Method) -> None:
        ctx = self.context()
        with torch.autocast("cpu", torch.bfloat16):
            events = self.act(ctx, method).events
        assert events
        assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in ctx.network.module.parameters())

    def test_says_what_it_is(self, method: Method) -> None:
        assert method.why and method.paper and method.batch_norm and method.cost

    def test_weights_that_are_not_finite_are_a_skipped_event(self, method: Method) -> None:
        ctx = self.context()
        if not self.measures:
            pytest.skip("measures nothing")
        with torch.no_grad():
            for p in ctx.network.module.parameters():
                p.fill_(float("nan"))
        result = self.act(ctx, method)
        assert not result.events and "finite" in result.skipped[-1]

    measures = True


class GrowthContract(MethodContract):
    """Growth keeps the function, unless it says that it does not."""

    measures = False

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    def test_the_function_changes_only_as_declared(self, method: Method, dtype: torch.dtype, tolerance: float) -> None:
        events = self.act(self.context(dtype), method).events
        assert events
        for event in events:
            assert event.kind in ("grow", "insert", "mask")
            assert event.parameters_after > event.parameters_before
            if method.promises():
                assert event.function_change is not None and event.function_scale is not None
                assert event.function_change <= tolerance * event.function_scale, event

    def test_new_weights_get_gradients(self, method: Method) -> None:
        """No new unit is dead: one step after the growth every new parameter entry can move."""
        ctx = self.context()
        before = copy.deepcopy(ctx.network.module)
        self.act(ctx, method)
        module = ctx.network.module
        inputs, targets = next(iter(ctx.batches(1)))
        for _ in range(2):
            module.zero_grad()
            F.cross_entropy(module(inputs), targets).backward()
            with torch.no_grad():
                for p in module.parameters():
                    p.sub_(gradient(p), alpha=0.1)
        old = dict(before.named_parameters())
        for name, p in module.named_parameters():
            if name not in old or old[name].shape != p.shape:
                assert gradient(p).abs().sum() > 0, name


class PruningContract(MethodContract):
    """Pruning leaves less."""

    def test_less_is_left(self, method: Method) -> None:
        events = self.act(mixed(), method).events
        assert events
        for event in events:
            assert event.kind in ("prune", "remove", "mask")
            assert event.parameters_after < event.parameters_before
