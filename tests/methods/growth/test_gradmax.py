"""What the GradMax paper claims, against autograd."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.measures.site import site_of
from coppice.methods.method import Context
from coppice.testing.examples import context

SHAPES = [
    (k1, k2, *rest)
    for k1, k2 in itertools.product((1, 3, 5), repeat=2)
    for rest in ((1, 1, 0, 0, 1, 1), (1, 2, 1, 1, 1, 1), (2, 1, 0, 2, 1, 2), (2, 2, 2, 1, 2, 1), (3, 2, 1, 0, 1, 2))
]


def convolutions(k1, k2, s1, s2, p1, p2, d1, d2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, k1, s1, p1, d1), nn.Tanh(), nn.Conv2d(4, 3, k2, s2, p2, d2), nn.Flatten(1, -1), Pool(3)
    )  # fmt: skip


class Pool(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), self.channels, -1)
        return (x * torch.linspace(-1, 1, x.shape[2], dtype=x.dtype)).sum(2) + x.square().mean(2)


def double(module: nn.Module, *shape: int, classes: int = 3, n: int = 6) -> Context:
    torch.manual_seed(1)
    for p in module.parameters():
        nn.init.normal_(p, 0, 0.4)
    return context(module.double(), torch.randn(n, *shape, dtype=torch.float64), torch.randint(classes, (n,)))


def grown_gradients(ctx: Context, element: str, count: int, method) -> tuple[Tensor, Tensor, dict]:
    """Gradient norms of the new units' fan-in and fan-out right after growing, and what was measured."""
    network = ctx.network
    at = network.element(element)
    assert method.accepts(ctx, at) is None, method.accepts(ctx, at)
    site = site_of(network, at)
    measured = method.measure(ctx, [at], {element: count})
    count = min(count, len(measured.scores[element]))
    apply(network, method.plan(ctx, at, range(count), measured))
    inputs, targets = next(iter(ctx.batches(1)))
    network.module.eval()
    F.cross_entropy(network.module(inputs), targets).backward()
    producer, consumer = (network.module.get_submodule(n) for n in (site.producer, site.consumer))
    fan_in = producer.weight.grad[site.size :].flatten(1).norm(dim=1)
    columns = consumer.weight.grad[:, site.size * site.taps :].unflatten(1, (count, site.taps)).movedim(1, 0)
    fan_out = columns.flatten(1).norm(dim=1)
    return fan_in, fan_out, measured.data[element] | {"scores": measured.scores[element]}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutions_are_exact(shape):
    ctx = double(convolutions(*shape), 3, 29, 28)
    method = build("grow", "gradmax", {"zero": "fan_in", "norm": "fixed", "scale": 1.0})
    fan_in, fan_out, data = grown_gradients(ctx, "0.weight:0", 3, method)
    assert torch.allclose(fan_in, data["sigma"][:3], rtol=1e-9)
    assert (fan_out == 0).all() and data["sigma"][0] > 0


BETWEEN = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3)), (5,), "0.weight:0"),
    "average pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 3, padding=1), Pool(3)),
        (2, 8, 8), "0.weight:0"),
    "flatten": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), (2, 8, 8), "0.weight:0"),
    "global average": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        (2, 8, 8), "0.weight:0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_what_lies_between_is_followed_exactly(name):
    factory, shape, element = BETWEEN[name]
    method = build("grow", "gradmax", {"zero": "fan_in"})
    fan_in, _, data = grown_gradients(double(factory(), *shape), element, 3, method)
    assert torch.allclose(fan_in.square(), data["scores"][:3], rtol=1e-9)
    assert (data["scores"].diff() <= 0).all()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_zero_fan_out_through_relu_and_max_pooling_predicts_its_gradients(batch_norm):
    norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
    between = [norm, nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), *between, nn.Conv2d(4, 3, 2), Pool(3))
    ctx = double(module, 2, 9, 9)
    if batch_norm:
        norm.running_mean.normal_()
        norm.eps = 0.0
    fan_in, fan_out, data = grown_gradients(ctx, "0.weight:0", 6, build("grow", "gradmax", {}))
    assert (fan_in == 0).all() and (fan_out > 0).all()
    assert torch.allclose(fan_out.square(), data["scores"][:6], rtol=1e-9)


@pytest.mark.parametrize(("zero", "act"), [("fan_in", nn.Tanh), ("fan_out", nn.ReLU)])
def test_random_draws_of_the_same_norm_get_smaller_gradients(zero, act):
    """Never with zero fan-in; seldom through ReLU with zero fan-out, where singular vectors are no maximum."""
    torch.manual_seed(3)
    build_net = lambda: nn.Sequential(nn.Linear(6, 5), act(), nn.Linear(5, 4))
    ctx = double(build_net(), 6, classes=4)
    method = build("grow", "gradmax", {"zero": zero, "norm": "fixed", "scale": 1.0})
    element = ctx.network.element("0.weight:0")
    best = float(method.measure(ctx, [element], {element.name: 2}).scores[element.name][:2].sum())
    inputs, targets = next(iter(ctx.batches(1)))
    first, last = ctx.network.module[0], ctx.network.module[2]
    larger = 0
    for _ in range(100):
        draw = torch.linalg.qr(torch.randn(4 if zero == "fan_in" else 6, 2, dtype=torch.float64)).Q.T.contiguous()
        other = torch.zeros(2, 6 if zero == "fan_in" else 4, dtype=torch.float64, requires_grad=True)
        rows, columns = (other, draw.T) if zero == "fan_in" else (draw, other.T)
        new = act()(inputs @ rows.T) @ columns.T
        loss = F.cross_entropy(last(act()(first(inputs))) + new, targets)
        larger += float(torch.autograd.grad(loss, other)[0].square().sum()) > best * (1 + 1e-9)
    assert larger <= (0 if zero == "fan_in" else 10), larger


def test_predicted_gain_is_the_decrease_of_the_loss():
    """One small step of the new weights alone lowers the loss by learning rate times the predicted gain."""
    ctx = double(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), 5)
    method = build("grow", "gradmax", {"zero": "fan_in"})
    element = ctx.network.element("0.weight:0")
    measured = method.measure(ctx, [element], {element.name: 2})
    event = apply(ctx.network, method.plan(ctx, element, range(2), measured))
    inputs, targets = next(iter(ctx.batches(1)))
    module, lr = ctx.network.module, 1e-4
    loss = F.cross_entropy(module(inputs), targets)
    (gradient,) = torch.autograd.grad(loss, module[0].weight)
    with torch.no_grad():
        module[0].weight[6:] -= lr * gradient[6:]
        decrease = loss.item() - F.cross_entropy(module(inputs), targets).item()
    assert decrease == pytest.approx(lr * event.predicted, rel=1e-2)


REFUSED = {
    "relu": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), "not linear at 0"),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)), "1/sqrt"),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3)), "not 0 at 0"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["gradmax", "random"])
def test_zero_fan_in_is_refused_where_it_would_be_unsound(name, method):
    factory, said = REFUSED[name]
    ctx = double(factory(), 4)
    element = ctx.network.element("0.weight:0")
    assert said in build("grow", method, {"zero": "fan_in"}).accepts(ctx, element)
    assert build("grow", method, {}).accepts(ctx, element) is None


def test_residual_streams_are_refused():
    from coppice.testing.examples import mixed

    ctx = mixed()
    assert "residual stream" in build("grow", "gradmax", {}).accepts(ctx, ctx.network.element("stem.weight:0"))
