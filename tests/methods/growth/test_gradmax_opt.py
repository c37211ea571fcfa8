"""What gradient ascent on new units' gradients must reach."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.catalog import build
from coppice.methods.growth.first_order.sweep import sweep
from coppice.methods.growth.gradmax_opt import SAME, _gains, _slope
from coppice.methods.measures.site import site_of
from tests.methods.growth.test_gradmax import Pool, double, grown_gradients

NAME = "0.weight:0"
NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), (6,), 4),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), Pool(3)),
        (2, 9, 9), 3),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(27, 3)), (2, 8, 8), 3),
}  # fmt: skip


def network(name):
    factory, shape, classes = NETWORKS[name]
    return double(factory(), *shape, classes=classes, n=20)


def views(ctx):
    seen = []
    samples = sweep(ctx, {NAME: site_of(ctx.network, ctx.network.element(NAME))}, lambda _, view: seen.append(view), 1)
    return seen, samples


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_new_units_are_those_of_autograd(name):
    ctx = network(name)
    fan_in, fan_out, data = grown_gradients(ctx, NAME, 3, build("grow", "gradmax_opt", {"steps": 5}))
    assert (fan_in == 0).all()
    assert torch.allclose(fan_out.square(), data["scores"][:3], rtol=1e-9)
    weight = ctx.network.module[0].weight.detach().flatten(1).norm(dim=1)
    assert torch.allclose(weight[-3:], 0.5 * weight[:-3].mean().expand(3))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_slope_is_that_of_finite_differences(name):
    ctx = network(name)
    seen, samples = views(ctx)
    torch.manual_seed(1)
    rows = torch.randn(2, *ctx.network.module[0].weight.shape[1:], dtype=torch.float64)
    slope = _slope(seen, rows.clone().requires_grad_(), samples)
    step = torch.randn_like(rows) * 1e-6
    difference = (_gains(seen, rows + step, samples) - _gains(seen, rows - step, samples)).sum() / 2
    assert float((slope * step).sum()) == pytest.approx(float(difference), rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_random_draw_of_the_same_norm_gets_a_larger_gradient(name):
    ctx = network(name)
    element = ctx.network.element(NAME)
    method = build("grow", "gradmax_opt", {"norm": "fixed", "scale": 1.0})
    best = method.measure(ctx, [element], {NAME: 2}).scores[NAME]
    seen, samples = views(ctx)
    draws = torch.randn(100, *ctx.network.module[0].weight.shape[1:], dtype=torch.float64)
    draws /= draws.flatten(1).norm(dim=1).view(-1, *[1] * (draws.dim() - 1))
    assert float(best[0]) >= float(_gains(seen, draws, samples).max())
    singular = build("grow", "gradmax", {"norm": "fixed", "scale": 1.0, "zero": "fan_out"})
    assert float(best.sum()) > 1.01 * float(singular.measure(ctx, [element], {NAME: 2}).scores[NAME].sum())


def test_units_do_not_become_copies_of_each_other():
    ctx = network("linear")
    method = build("grow", "gradmax_opt", {"steps": 200})
    measured = method.measure(ctx, [ctx.network.element(NAME)], {NAME: 6})
    rows = F.normalize(measured.data[NAME]["rows"], dim=1)
    cosines = rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)
    assert len(rows) == 6 and float(cosines.max()) <= SAME
    assert (measured.scores[NAME].diff() <= 0).all()


def test_residual_streams_are_refused():
    from coppice.testing.examples import mixed

    ctx = mixed()
    assert "residual stream" in build("grow", "gradmax_opt", {}).accepts(ctx, ctx.network.element("stem.weight:0"))
