"""Optimal brain surgeon: the predicted loss is the measured one, and making up for what goes beats leaving the rest alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.catalog import build
from coppice.methods.measures.quadratic import Flat, exact_hessian, gauss_newton, inverse
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.networks.dag import dag
from coppice.methods.plan import MaskPlan
from coppice.methods.pruning.obs import Surgeon
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import context, mixed


def loss_of(ctx: Context) -> float:
    inputs, targets = next(iter(ctx.batches(1)))
    with torch.no_grad():
        return float(ctx.loss(ctx.network.module(inputs), targets))


def least_squares(converged: bool = True) -> Context:
    """A linear model of correlated inputs at its minimum, where everything that the method assumes is true."""
    torch.manual_seed(0)
    x = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    y = x @ torch.randn(6, 2, dtype=torch.float64) + torch.randn(200, 2, dtype=torch.float64)
    module = nn.Linear(6, 2).double()
    if converged:
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones(200, 1, dtype=torch.float64)], 1), y).solution
        module.weight.data, module.bias.data = solution[:6].T.contiguous(), solution[6].clone()
    return context(module, x, y, loss=F.mse_loss)


def trained(steps: int = 10, noise: float = 0.03) -> Context:
    """A small tanh network of single connections at its minimum, on the noisy data of one that lacks some of its connections."""
    torch.manual_seed(2)
    teacher, module = dag(3, 2, (5,), skip=True).double(), dag(3, 2, (5,), skip=True).double()
    x = torch.randn(400, 3, dtype=torch.float64)
    with torch.no_grad():
        teacher.weight.mul_(2 * (torch.rand(5, 8) > 0.3))
        teacher.out.weight.mul_(5)
        y = teacher(x) + noise * torch.randn(400, 2, dtype=torch.float64)
        module.load_state_dict(teacher.state_dict())
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(module(x), y)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    network = Network(module, "coppice.methods.networks.dag:dag", {}, (x[:2],))
    return Context(network, lambda count: [(x, y)] * count, F.mse_loss, torch.Generator())


@pytest.mark.parametrize("curvature", ["gauss_newton", "exact"])
@pytest.mark.parametrize("converged", [True, False])
def test_the_predicted_loss_of_a_linear_model_is_exact(curvature, converged):
    ctx = least_squares(converged)
    before = loss_of(ctx)
    method = build("prune", "obs", {"curvature": curvature, "damping": 1e-12, "num_batches": 1})
    result = adapt(ctx, Adaptation(method, All(), 5 / 12))
    (event,) = result.events
    assert event.parameters_before - event.parameters_after == 5
    assert loss_of(ctx) - before == pytest.approx(event.predicted, rel=1e-6)
    if converged:
        x, y = next(iter(ctx.batches(1)))
        ones = torch.cat([x, torch.ones(200, 1, dtype=torch.float64)], 1)
        for o, mask in enumerate(ctx.network.masks["weight"]):
            kept = ones[:, torch.cat([mask, torch.tensor([True])])]
            best = torch.linalg.lstsq(kept, y[:, o : o + 1]).solution.flatten()
            ours = torch.cat([ctx.network.module.weight[o][mask], ctx.network.module.bias[o : o + 1]])
            assert torch.allclose(ours, best, rtol=1e-6), "what is left is the least-squares solution without the others"


def test_removals_one_after_another_follow_the_inverse():
    ctx = least_squares()
    quadratic = gauss_newton(ctx, Flat.of(ctx.network), 1)
    surgeon = Surgeon(quadratic.weights.clone(), inverse(quadratic.curvature, 1e-12))
    for removed in ([4], [4, 9]):
        surgeon.remove(removed[-1])
        left = [i for i in range(14) if i not in removed]
        direct = torch.linalg.inv(quadratic.curvature[left][:, left])
        assert torch.allclose(surgeon.inverse[left][:, left], direct, rtol=1e-6, atol=1e-9)
        assert torch.isinf(surgeon.costs()[removed]).all() and not surgeon.inverse[removed].any()


@pytest.mark.parametrize("form", [gauss_newton, exact_hessian])
def test_curvature_is_the_second_derivative(form):
    ctx = least_squares(False) if form is gauss_newton else trained(3, 2)
    flat, module = Flat.of(ctx.network), ctx.network.module
    quadratic = form(ctx, flat, 2)
    x, y = next(iter(ctx.batches(1)))

    def loss(vector: torch.Tensor) -> torch.Tensor:
        start, held = 0, {}
        for name, mask in flat.masks.items():
            count = int(mask.sum())
            held[name] = torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, vector[start : start + count])
            start += count
        return F.mse_loss(torch.func.functional_call(module, held, (x,)), y)

    assert torch.allclose(quadratic.gradient, torch.autograd.functional.jacobian(loss, quadratic.weights), atol=1e-10)
    assert torch.allclose(quadratic.curvature, torch.autograd.functional.hessian(loss, quadratic.weights), atol=1e-10)
    assert quadratic.loss == pytest.approx(float(loss(quadratic.weights)), rel=1e-12)


@pytest.mark.parametrize(("curvature", "tolerance"), [("gauss_newton", 0.1), ("exact", 0.05)])
def test_the_predicted_loss_of_a_trained_network_is_close(curvature, tolerance):
    start = trained()
    method = build("prune", "obs", {"curvature": curvature, "num_batches": 1})
    for count in (1, 3, 5):
        ctx = Context(copy.deepcopy(start.network), start.batches, start.loss, torch.Generator())
        events = adapt(ctx, Adaptation(method, GlobalRanking(), count / start.network.num_parameters())).events
        predicted, measured = sum(e.predicted for e in events), loss_of(ctx) - loss_of(start)
        assert sum(e.parameters_before - e.parameters_after for e in events) >= count - 1 and measured > 0
        assert predicted == pytest.approx(measured, rel=tolerance), (count, predicted, measured)


def test_making_up_for_what_goes_beats_removing_the_smallest_weights():
    start = trained()
    losses = {}
    for name, arguments in (("obs", {"num_batches": 1}), ("magnitude_weights", {})):
        ctx = Context(copy.deepcopy(start.network), start.batches, start.loss, torch.Generator())
        adapt(ctx, Adaptation(build("prune", name, arguments), GlobalRanking(), 0.15))
        losses[name] = loss_of(ctx)
    assert losses["obs"] < 0.5 * losses["magnitude_weights"]


def test_plans_of_several_tensors_build_on_each_other():
    """The joint prediction stays exact when weights of two tensors go in one step, whatever the order of the tensors."""
    torch.manual_seed(1)
    x, y = torch.randn(60, 3, dtype=torch.float64), torch.randn(60, 2, dtype=torch.float64)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2, bias=False)

        def forward(self, v: torch.Tensor) -> torch.Tensor:
            return self.a(v) + self.b(v * v + 0.5 * v)

    ctx = context(Two().double(), x, y, loss=F.mse_loss)
    before = loss_of(ctx)
    events = adapt(ctx, Adaptation(build("prune", "obs", {"damping": 1e-12, "num_batches": 1}), All(), 1 / 3)).events
    assert [e.element for e in events] == ["a.weight", "b.weight"]
    assert loss_of(ctx) - before == pytest.approx(sum(e.predicted for e in events), rel=1e-6)


def test_advice_stops_at_the_tolerance():
    ctx = trained()
    before = loss_of(ctx)
    strict = build("prune", "obs", {"tolerance": 0.0, "num_batches": 1})
    assert not adapt(ctx, Adaptation(strict, All(), Amount(0, "advised"))).events
    loose = build("prune", "obs", {"tolerance": 0.01, "most": 0.2, "num_batches": 1})
    events = adapt(ctx, Adaptation(loose, All(), Amount(0, "advised"))).events
    gone = sum(e.parameters_before - e.parameters_after for e in events)
    assert 1 <= gone <= 0.2 * 60
    assert sum(e.predicted for e in events) <= 0.01 * before * gone * 1.2


def test_large_networks_are_refused():
    ctx = mixed()
    method = build("prune", "obs", {"largest": 100})
    assert "too large" in method.accepts(ctx, ctx.network.element("fc2.weight"))


def test_masked_weights_stay_masked():
    ctx = least_squares(False)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, :3] = False
    ctx.network.masks["weight"] = mask
    ctx.network.module.weight.data *= mask
    plans: list[MaskPlan] = []
    adapt(ctx, Adaptation(build("prune", "obs", {"num_batches": 1}), All(), 2), defer=lambda plan: plans.append(plan) or True)
    assert int(plans[0].masks["weight"].sum()) == 7 and not plans[0].adjust["weight"][0, :3].any()
