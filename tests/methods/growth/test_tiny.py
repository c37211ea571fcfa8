"""What the paper on TINY claims, against autograd and against brute force."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.first_order.cross_moment import add_cross_moment
from coppice.methods.growth.first_order.linearised import linearise
from coppice.methods.growth.first_order.sweep import sweep
from coppice.methods.measures.site import site_of
from coppice.methods.method import Context
from coppice.methods.selection import All
from coppice.testing.examples import context, everything, same
from tests.methods.growth.test_gradmax import Pool, double

NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3)), (5,)),
    "relu": (lambda: nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)), (5,)),
    "stride": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 3, 3, 2, 1, 2), Pool(3)), (2, 12, 11)),
    "average pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 3, bias=False), Pool(3)),
        (2, 8, 8)),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), (2, 8, 8)),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                              nn.Conv2d(4, 3, 2), Pool(3)), (2, 9, 9)),
}  # fmt: skip
NAME = "0.weight:0"


def grown(ctx: Context, units: int, **arguments) -> tuple[float, float]:
    """Predicted and actual decrease of the loss by a growth event."""
    method = build("grow", "tiny", arguments)
    element = ctx.network.element(NAME)
    assert method.accepts(ctx, element) is None
    measured = method.measure(ctx, [element], {NAME: units})
    inputs, targets = next(iter(ctx.batches(1)))
    ctx.network.module.eval()
    before = F.cross_entropy(ctx.network.module(inputs), targets).item()
    event = apply(ctx.network, method.plan(ctx, element, range(min(units, len(measured.scores[NAME]))), measured))
    return event.predicted, before - F.cross_entropy(ctx.network.module(inputs), targets).item()


@pytest.mark.parametrize("natural_step", [False, True])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_order_decrease_is_the_predicted_one(name, projection, natural_step):
    factory, shape = NETWORKS[name]
    ctx = double(factory(), *shape, n=40)
    arguments = {"step": 1e-4, "line_search": False, "natural_step": natural_step, "projection": projection}
    predicted, actual = grown(ctx, 2, **arguments)
    assert abs(predicted) > 1e-8 and actual == pytest.approx(predicted, rel=2e-2)


def test_without_projection_scores_are_the_gains():
    for name in ("linear", "stride", "flatten"):
        factory, shape = NETWORKS[name]
        ctx = double(factory(), *shape, n=40)
        method = build("grow", "tiny", {"projection": False})
        measured = method.measure(ctx, [ctx.network.element(NAME)], {NAME: 4})
        assert torch.allclose(measured.scores[NAME], measured.data[NAME]["gains"])
        assert (measured.scores[NAME].diff() <= 0).all()


def residual(ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Input with a one, what the last layer's weights leave of minus its gradient per sample, and the inputs of that layer."""
    inputs, targets = next(iter(ctx.batches(1)))
    first, act, last = ctx.network.module
    hidden = act(first(inputs)).detach()
    out = last(hidden).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(out, targets, reduction="sum"), out)
    ones = torch.ones(len(inputs), 1, dtype=inputs.dtype)
    basis = torch.cat([hidden, ones], 1)
    wanted = -gradient
    wanted = wanted - basis @ torch.linalg.lstsq(basis, wanted).solution
    return torch.cat([inputs, ones], 1), wanted, basis


def test_no_unit_comes_nearer_to_what_the_existing_weights_cannot_do():
    """Of all units of one size at the consumer's output, the first one is best; the score is its share (proposition 3.2)."""
    ctx = double(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6)), 5, classes=6, n=60)
    x, wanted, _ = residual(ctx)
    method = build("grow", "tiny", {"cut": 0.0})
    element = ctx.network.element(NAME)
    measured = method.measure(ctx, [element], {NAME: 1})
    data = measured.data[NAME]
    made = (x @ data["incoming"].T) @ data["outgoing"].flatten(1)
    n = len(x)
    assert float((made * wanted).sum() / n) == pytest.approx(float(measured.scores[NAME][0]), rel=1e-9)
    assert float(made.square().sum() / n) == pytest.approx(float(measured.scores[NAME][0]), rel=1e-9)
    best = float((made * wanted).sum() / made.norm())
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randn(6, 1, dtype=torch.float64, generator=generator)
        columns = torch.randn(1, 6, dtype=torch.float64, generator=generator)
        other = x @ rows @ columns
        assert float((other * wanted).sum().abs() / other.norm()) < best


def test_the_natural_step_is_the_least_squares_solution():
    ctx = double(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6)), 5, classes=6, n=60)
    inputs, targets = next(iter(ctx.batches(1)))
    first, act, last = ctx.network.module
    hidden = torch.cat([act(first(inputs)), torch.ones(60, 1, dtype=torch.float64)], 1).detach()
    out = last(hidden[:, :4])
    (gradient,) = torch.autograd.grad(F.cross_entropy(out, targets, reduction="sum"), out)
    solution = torch.linalg.lstsq(hidden, -gradient).solution.T
    method = build("grow", "tiny", {"natural_step": True, "step": 0.5, "line_search": False, "cut": 0.0})
    element = ctx.network.element(NAME)
    plan = method.plan(ctx, element, [0], method.measure(ctx, [element], {NAME: 1}))
    assert torch.allclose(plan.adjust["2.weight"], 0.5 * solution[:, :4])
    assert torch.allclose(plan.adjust["2.bias"], 0.5 * solution[:, 4])


def test_where_existing_weights_can_do_it_all_nothing_is_offered():
    ctx = double(NETWORKS["linear"][0](), 5, n=4)
    before = everything(ctx.network.module)
    result = adapt(ctx, Adaptation(build("grow", "tiny", {"cut": 1e-6}), All(), 0.5))  # a large ridge holds existing weights back
    assert not result.events and any("nothing to offer" in reason for reason in result.skipped)
    assert same(before, everything(ctx.network.module))


def test_batch_norm_changes_nothing_about_new_units():
    ctx = double(NETWORKS["batch norm"][0](), 2, 9, 9, n=40)
    nn.init.uniform_(ctx.network.module[1].running_var, 0.5, 2.0)
    grown(ctx, 2, step=1.0, line_search=False)
    conv, norm = ctx.network.module[0], ctx.network.module[1]
    made = conv(next(iter(ctx.batches(1)))[0])
    for training in (True, False):
        assert torch.allclose(norm.train(training)(made)[:, 4:], made[:, 4:], rtol=1e-2, atol=1e-3)


def test_the_line_search_takes_the_lowest_loss():
    decrease = {}
    for search in (False, True):
        ctx = double(NETWORKS["linear"][0](), 5, n=40)
        ctx = dataclasses.replace(ctx, loss=lambda out, target: 50 * F.cross_entropy(out, target))
        arguments = {"step": 4.0, "line_search": search, "natural_step": True}
        decrease[search] = grown(ctx, 1, **arguments)[1]
    assert decrease[False] < decrease[True] and decrease[True] > 0, decrease


def test_a_convolution_is_left_what_its_own_weights_cannot_do():
    """Without whitening, sigma are the singular values of A for the part of the gradient that least squares leaves."""
    factory, shape = NETWORKS["stride"]
    ctx = double(factory(), *shape, n=40)
    method = build("grow", "tiny", {"whitening": False, "cut": 0.0, "threshold": 0.0})
    ctx.network.module[0].bias = None
    ctx.network.changed()
    scores = method.measure(ctx, [ctx.network.element(NAME)], {NAME: 5}).scores[NAME]
    squares = []

    def use(name, view):
        h = F.unfold(view.behind, view.consumer.kernel_size, view.consumer.dilation, view.consumer.padding, view.consumer.stride)
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1).movedim(1, 2).flatten(0, 1)
        g = view.gradient.flatten(2).movedim(1, 2)
        left = g.flatten(0, 1) - h @ torch.linalg.lstsq(h, g.flatten(0, 1)).solution
        total = torch.zeros(view.producer.weight[0].numel(), 27, dtype=torch.float64)
        path = linearise(view.run, view.shape, view.before, True)
        add_cross_moment(total, view, path, left.view_as(g).movedim(2, 1).reshape(view.gradient.shape))
        squares.append(torch.linalg.svdvals(total / 40)[:5].square())

    sweep(ctx, {NAME: site_of(ctx.network, ctx.network.element(NAME))}, use, 1)
    assert torch.allclose(scores, squares[0], rtol=1e-6)


def test_an_activation_that_is_not_zero_at_zero_is_refused():
    ctx = double(nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 3)), 5)
    assert "not 0 at 0" in build("grow", "tiny", {}).accepts(ctx, ctx.network.element(NAME))


def test_new_units_escape_what_training_the_old_ones_cannot():
    """A layer with too few units cannot lower the loss by its last weights; one unit of TINY can, better than a random one."""
    torch.manual_seed(0)
    x = torch.randn(200, 6, dtype=torch.float64)
    y = torch.tanh(x @ torch.randn(6, 6, dtype=torch.float64)) @ torch.randn(6, 4, dtype=torch.float64)
    losses = {}
    for name in ("tiny", "random"):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 4)).double()
        hidden = torch.cat([module[1](module[0](x)), torch.ones(200, 1)], 1).detach()
        solution = torch.linalg.lstsq(hidden, y).solution.T
        with torch.no_grad():
            module[2].weight.copy_(solution[:, :2])
            module[2].bias.copy_(solution[:, 2])
        ctx = context(module, x, y, loss=F.mse_loss)
        adapt(ctx, Adaptation(build("grow", name, {"zero": "none"} if name == "random" else {"step": 4.0}), All(), 1))
        losses[name] = float(F.mse_loss(module(x), y).detach())
        losses["before"] = float((hidden @ solution.T - y).square().mean())
    assert losses["tiny"] < 0.95 * losses["before"] and losses["tiny"] < losses["random"], losses
