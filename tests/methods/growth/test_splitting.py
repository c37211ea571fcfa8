"""What the papers on splitting claim."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.growth.splitting.curvature import SplittingMatrices, exact_ends, fast_ends
from coppice.methods.growth.splitting.method import Splitting
from coppice.methods.growth.splitting.smooth_relu import BETA, SmoothReLU
from coppice.methods.measures.site import site_of
from coppice.methods.measures.statistics import mean_loss
from coppice.methods.method import Context
from coppice.methods.selection import All
from coppice.testing.examples import context, mixed, randomised


def double(module: nn.Module, *shape: int, classes: int = 3, seed: int = 1) -> Context:
    torch.manual_seed(seed)
    for p in module.parameters():
        nn.init.normal_(p, 0, 0.4)
    inputs = torch.randn(10, *shape, dtype=torch.float64)
    return context(randomised(module).double(), inputs, torch.randint(classes, (10,)))


NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), (5,)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3)), (5,)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=2, bias=False), nn.BatchNorm2d(4), nn.SiLU(), nn.AvgPool2d(2),
            nn.Conv2d(4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ), (2, 12, 11)),
    "max-pooling and flatten": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), (2, 8, 8)),
}  # fmt: skip


def measured(ctx: Context, method: Splitting, name: str = "0.weight:0"):
    element = ctx.network.element(name)
    assert method.accepts(ctx, element) is None
    return element, method.measure(ctx, [element], {name: 99})


@pytest.mark.parametrize(("name", "signed"), list(itertools.product(NETWORKS, (False, True))))
def test_the_predicted_decrease_is_the_measured_one(name, signed):
    """Each offered unit split alone, and all of them together."""
    factory, shape = NETWORKS[name]
    method = Splitting(signed=signed, epsilon=1e-3)
    ctx = double(factory(), *shape)
    _, measurement = measured(ctx, method)
    gains = measurement.scores["0.weight:0"]
    assert len(gains) == ctx.network.element("0.weight:0").size if signed else len(gains) > 0
    assert (gains > 0).all() and (gains.diff() <= 0).all()
    for units in [*([i] for i in range(len(gains))), list(range(len(gains)))]:
        ctx = double(factory(), *shape)
        element, measurement = measured(ctx, method)
        before = mean_loss(ctx, 1)
        event = apply(ctx.network, method.plan(ctx, element, units, measurement))
        assert float(before - mean_loss(ctx, 1)) == pytest.approx(event.predicted, rel=0.03)
        assert event.predicted == pytest.approx(float(gains[units].sum()))
    if signed and name == "linear":
        assert (measurement.data["0.weight:0"]["shares"] < 0).any()


def hessian_of_one_unit(ctx: Context, unit: int) -> Tensor:
    """S from its definition: loss of the network in which the unit's output is doubled as two halves with opposite offsets."""
    first, act, last = ctx.network.module
    inputs, targets = next(iter(ctx.batches(1)))

    def loss(offset: Tensor) -> Tensor:
        z = first(inputs)
        both = [act(z[:, unit] + sign * (inputs @ offset)) for sign in (1.0, -1.0)]
        h = act(z).index_copy(1, torch.tensor([unit]), ((both[0] + both[1]) / 2).unsqueeze(1))
        return F.cross_entropy(last(h), targets)

    return torch.autograd.functional.hessian(loss, torch.zeros(5, dtype=torch.float64))


def test_the_splitting_matrix_is_the_hessian_that_opposite_offsets_see():
    ctx = double(NETWORKS["linear"][0](), 5)
    matrices = SplittingMatrices(ctx, site_of(ctx.network, ctx.network.element("0.weight:0")), 1).matrices()
    for unit in range(6):
        assert torch.allclose(matrices[unit], hessian_of_one_unit(ctx, unit), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fast_form_agrees_with_the_exact_one(name):
    factory, shape = NETWORKS[name]
    ctx = double(factory(), *shape)
    site = site_of(ctx.network, ctx.network.element("0.weight:0"))
    curvature = SplittingMatrices(ctx, site, 2)
    exact = exact_ends(curvature)
    matrices = curvature.matrices()
    v = torch.randn(matrices.shape[:2], dtype=torch.float64)
    assert torch.allclose(curvature.times(v), (matrices @ v.unsqueeze(2)).squeeze(2), rtol=1e-9, atol=1e-15)
    full = fast_ends(curvature, 99, torch.Generator().manual_seed(0))
    size = exact.high - exact.low
    assert (((full.low - exact.low) / size).abs() < 1e-6).all() and (((full.high - exact.high) / size).abs() < 1e-6).all()
    some = fast_ends(curvature, 8, torch.Generator().manual_seed(0))
    assert ((some.low - exact.low) / size < 0.05).all()
    quotient = (some.low_vectors.unsqueeze(1) @ matrices @ some.low_vectors.unsqueeze(2)).flatten()
    assert torch.allclose(quotient, some.low, rtol=1e-9, atol=1e-12)


class Student(nn.Module):
    def __init__(self, act: nn.Module, hidden: int = 1) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(2, hidden), act, nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


def descend(ctx: Context) -> float:
    """Train until the gradient is gone; returns its largest entry."""
    module = ctx.network.module
    inputs, targets = next(iter(ctx.batches(1)))

    def closure() -> Tensor:
        module.zero_grad()
        loss = F.mse_loss(module(inputs), targets)
        loss.backward()
        return loss

    exact = {"tolerance_grad": 1e-13, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
    for _ in range(6):
        torch.optim.LBFGS(module.parameters(), max_iter=200, **exact).step(closure)
    closure()
    return max(float(p.grad.abs().max()) for p in module.parameters())


@pytest.mark.parametrize("form", ["exact", "fast"])
def test_splitting_leaves_a_minimum_that_gradient_descent_cannot_leave(form):
    """One neuron has converged on data of a function that needs more; each split goes on from there to a far lower loss."""
    torch.manual_seed(0)
    x = torch.randn(200, 2, dtype=torch.float64)
    y = sum(torch.tanh(x @ torch.tensor(w, dtype=x.dtype)) for w in ([[1.0], [0.3]], [[-0.2], [1.0]], [[0.8], [-0.6]]))
    ctx = context(Student(nn.Tanh()).double(), x, y, loss=F.mse_loss)
    method = Splitting(form=form)
    losses = []
    for _ in range(2):
        assert descend(ctx) < 1e-6
        losses.append(float(mean_loss(ctx, 1)))
        _, measurement = measured(ctx, method, "first.weight:0")
        assert measurement.signals["lambda_min"] < 0
        events = adapt(ctx, Adaptation(method, All(), 1)).events
        assert events and float(mean_loss(ctx, 1)) < losses[-1]
    descend(ctx)
    losses.append(float(mean_loss(ctx, 1)))
    assert losses[1] < 0.3 * losses[0] and losses[2] < 0.3 * losses[1], losses


def test_at_the_right_answer_no_unit_is_offered():
    torch.manual_seed(0)
    x = torch.randn(50, 2, dtype=torch.float64)
    student = Student(nn.Tanh(), 3).double()
    ctx = context(student, x, student(x).detach(), loss=F.mse_loss)
    result = adapt(ctx, Adaptation(Splitting(signed=True), All(), 1.0))
    assert not result.events and "nothing to grow" in result.skipped[-1]


def test_signed_splitting_descends_where_no_eigenvalue_is_negative():
    """All outputs are too large and every unit is convex and adds to them: S is positive semidefinite."""
    torch.manual_seed(0)
    student = Student(nn.Softplus(), 3).double()
    nn.init.uniform_(student.last.weight, 0.5, 1.0)
    x = torch.randn(50, 2, dtype=torch.float64)
    ctx = context(student, x, student(x).detach() - 1.0, loss=F.mse_loss)
    plain = adapt(ctx, Adaptation(Splitting(), All(), 1.0))
    assert not plain.events
    before = mean_loss(ctx, 1)
    (event,) = adapt(ctx, Adaptation(Splitting(signed=True, epsilon=1e-2, weight_sum=5.0), All(), 1.0)).events
    decrease = float(before - mean_loss(ctx, 1))
    assert decrease > 0 and decrease == pytest.approx(event.predicted, rel=0.02)
    assert ctx.network.module.last.weight[0, 3:].max() < 0


def test_relu_is_a_softplus_wherever_it_is_written():
    x = torch.linspace(-2, 8, 41, dtype=torch.float64)
    smooth = F.softplus(x, beta=BETA)
    with SmoothReLU():
        made = [F.relu(x), torch.relu(x), x.relu(), nn.ReLU()(x), x.clamp(min=0)]
        made += [nn.ReLU(inplace=True)(x.clone()), x.clone().relu_()]
        leaky, capped, other = F.leaky_relu(x, 0.1), F.relu6(x), x.clamp(-1, 1)
    assert all(torch.equal(m, smooth) for m in made)
    assert torch.allclose(leaky, F.leaky_relu(x, 0.1), atol=0.25) and not torch.equal(leaky, F.leaky_relu(x, 0.1))
    assert torch.allclose(capped, F.relu6(x), atol=0.25) and torch.equal(other, x.clip(-1, 1))
    assert torch.equal(F.relu(x), x.clamp(min=0))


def test_units_behind_relu_are_ranked_and_split():
    ctx = mixed(torch.float64)
    names = ("block.conv1.weight:0", "conv.weight:0", "fc1.weight:0")
    elements = [ctx.network.element(n) for n in names]
    measurement = Splitting().measure(ctx, elements, dict.fromkeys(names, 99))
    assert set(measurement.scores) == set(names)
    slopes = SplittingMatrices(ctx, site_of(ctx.network, elements[1]), 1).matrices()
    assert (slopes.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("form", ["exact", "fast"])
def test_masked_weights_stay_zero(form):
    ctx = double(NETWORKS["linear"][0](), 5)
    mask = torch.rand(6, 5) > 0.4
    ctx.network.masks["0.weight"] = mask
    with torch.no_grad():
        ctx.network.module[0].weight.mul_(mask)
    element, measurement = measured(ctx, Splitting(form=form))
    apply(ctx.network, Splitting().plan(ctx, element, [0, 1], measurement))
    parents = measurement.data["0.weight:0"]["parents"][:2]
    weight = ctx.network.module[0].weight
    assert (weight[~torch.cat([mask, mask[parents]])] == 0).all() and (weight[:6][parents] != weight[6:])[mask[parents]].all()


def test_a_batch_norm_without_running_statistics_is_refused():
    norm = nn.BatchNorm1d(6, track_running_stats=False)
    module = nn.Sequential(nn.Linear(5, 6), norm, nn.Tanh(), nn.Linear(6, 3))
    ctx = context(module, torch.randn(4, 5), torch.randint(3, (4,)))
    assert "no running statistics" in Splitting().accepts(ctx, ctx.network.element("0.weight:0"))


def test_splits_of_two_layers_in_one_step_add_up():
    """The copies of the first layer are followed by the plan for the second."""
    ctx = double(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), 5)
    before = mean_loss(ctx, 1)
    events = adapt(ctx, Adaptation(Splitting(epsilon=1e-3, signed=True), All(), 0.5)).events
    assert len(events) == 2
    assert float(before - mean_loss(ctx, 1)) == pytest.approx(sum(e.predicted for e in events), rel=0.03)
