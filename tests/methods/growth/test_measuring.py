"""What gradient-based growth methods measure with: recorded paths, pieces of batches, unfolded products, singular vectors."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import build
from coppice.methods.growth.first_order import gradients, sweep
from coppice.methods.growth.first_order.linearised import linearise
from coppice.methods.growth.first_order.path import Paths
from coppice.methods.growth.first_order.singular import leading
from coppice.methods.growth.first_order.unfold import unfolded, unfolded_back
from coppice.methods.measures.site import site_of, through
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.testing.examples import everything, mixed, same
from tests.methods.growth.test_gradmax import Pool, double


class Net(nn.Module):
    """Two convolutions with `between` in the middle."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last, self.pool, self.between = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), Pool(3), between

    def forward(self, x):
        return self.pool(self.last(self.between(self.first(x))))


def in_place(x):
    x.clamp_(min=-0.2)
    x += 0.1 * x
    return x


def assigned(x):
    out = torch.zeros_like(x)
    out[:, :, 1:] = x[:, :, :-1]
    return out


def hidden(x):
    """As calls that PyTorch does not show."""
    with torch._C.DisableTorchFunction():
        return x * 2


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def split(x):
    a, b = x.chunk(2, 3)
    return torch.cat([a.relu(), F.gelu(b)], 3)


BETWEEN = {
    "relu in place": nn.ReLU(inplace=True),
    "in place": in_place,
    "assigned": assigned,
    "split": split,
    "view": lambda x: F.max_pool2d(x.view(len(x), x.size(1), *x.shape[2:]), 2),
    "nothing": lambda x: x,
    "custom function": Double.apply,
    "hidden": hidden,
}


@pytest.mark.parametrize("name", BETWEEN)
def test_a_recorded_path_is_the_one_of_the_network(name):
    ctx = double(Net(nn.ReLU()), 2, 9, 8)
    network, module = ctx.network, ctx.network.module
    site = site_of(network, network.element("first.weight:0"))
    module._modules.pop("between")
    object.__setattr__(module, "between", BETWEEN[name])
    inputs = next(iter(ctx.batches(1)))[0]
    paths = Paths(network, {"it": site})
    with paths:
        module(inputs)
    shape, run = paths.of("it", inputs)
    for _ in range(2):
        z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        kept = z.detach().clone()
        ours, theirs = run(z), through(network, site, inputs, z)
        weights = torch.randn_like(ours)
        assert torch.equal(ours, theirs) and torch.equal(z, kept)
        (a,), (b,) = torch.autograd.grad(ours, z, weights), torch.autograd.grad(theirs, z, weights)
        assert torch.equal(a, b) and a.abs().sum() > 0
    assert paths._tapes["it"].complete == (name != "hidden")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_the_derivative_of_a_path_is_diagonal_only_where_it_is():
    shape, like = torch.Size((3, 4, 6, 6)), torch.zeros(1, dtype=torch.float64)
    for run, diagonal in ((torch.tanh, True), (lambda z: F.avg_pool2d(z, 3, 1, 1), False), (lambda z: z.flip(3), False)):
        assert (linearise(run, shape, like, exact=True).diagonal is not None) == diagonal
    half = linearise(torch.relu, shape, like, exact=False).diagonal
    assert torch.equal(half, torch.full_like(half, 0.5))


@pytest.mark.parametrize("geometry", [(3, 1, 1, 1), (3, 2, 1, 1), (2, 3, 0, 2), ((3, 1), (1, 2), (2, 0), (1, 2))], ids=str)
def test_unfolding_and_its_transpose(geometry):
    conv = nn.Conv2d(3, 4, *geometry).double()
    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    patches = unfolded(conv, x).transpose(0, 1)
    assert torch.equal(patches, F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride))
    gradient = torch.randn_like(conv(x))
    back = unfolded_back(conv, gradient, x.shape)
    taps = conv.weight[0, 0].numel()
    for o, t in ((0, 0), (3, taps - 1), (2, taps // 2)):
        kernel = torch.zeros(4, 1, taps, dtype=torch.float64)
        kernel[o, 0, t] = 1.0
        one = torch.zeros(2, 1, 11, 9, dtype=torch.float64, requires_grad=True)
        made = F.conv2d(one, kernel.view(4, 1, *conv.kernel_size), None, conv.stride, conv.padding, conv.dilation)
        assert torch.allclose(back[o, t], torch.autograd.grad(made, one, gradient)[0][:, 0])


def accepted(ctx, method):
    return [e for e in ctx.network.elements() if method.accepts(ctx, e) is None]


@pytest.mark.parametrize(("name", "passes"), [("gradmax", 2), ("tiny", 3)])
def test_all_elements_are_measured_in_the_same_passes(name, passes):
    ctx = mixed()
    method, runs = build("grow", name, {"num_batches": 2}), []
    elements = accepted(ctx, method)
    assert len(elements) >= 3
    handle = ctx.network.module.stem.register_forward_hook(lambda *_: runs.append(1))
    method.measure(ctx, elements, {e.name: 4 for e in elements})
    handle.remove()
    assert len(runs) == 2 * passes


@pytest.mark.parametrize("name", ["gradmax", "tiny", "gradmax_opt"])
def test_pieces_of_a_batch_blocks_and_groups_give_the_same_as_the_whole(name, monkeypatch):
    method, by_order = build("grow", name, {"steps": 2} if name == "gradmax_opt" else {}), []
    for small in (False, True):
        if small:
            monkeypatch.setattr(sweep, "CHUNK_BYTES", 1)
            monkeypatch.setattr(gradients, "GROUP_BYTES", 1)
            monkeypatch.setattr("coppice.methods.growth.first_order.cross_moment.BLOCK_BYTES", 1)
        ctx = mixed(torch.float64)
        elements = [e for e in accepted(ctx, method) if e.name != "conv.weight:0"]
        by_order.append(method.measure(ctx, elements, {e.name: 3 for e in elements}).scores)
    assert by_order[0].keys() == by_order[1].keys() and len(by_order[0]) >= 2
    for element, scores in by_order[0].items():
        assert torch.allclose(scores, by_order[1][element], rtol=1e-6), element


def test_leading_vectors_of_a_large_matrix():
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 800, dtype=torch.float64)).Q for n in (900, 850))
    sigma = 0.9 ** torch.arange(800, dtype=torch.float64)
    matrix = (left * sigma) @ right.T
    u, s, v = leading(matrix, 20)
    assert torch.allclose(s, sigma[:20], rtol=1e-6)
    assert torch.allclose((u.T @ left[:, :20]).diagonal().abs(), torch.ones(20, dtype=torch.float64), atol=1e-6)
    assert torch.allclose((v @ right[:, :20]).diagonal().abs(), torch.ones(20, dtype=torch.float64), atol=1e-6)
    assert len(leading(matrix[:, :5] @ torch.eye(5, 700, dtype=torch.float64), 20)[1]) == 5


@pytest.mark.parametrize("name", ["gradmax", "tiny"])
@pytest.mark.parametrize("amount", [Amount(40), Amount(1.0, "seed")])
def test_an_amount_above_the_rank_adds_as_many_as_the_rank_and_says_so(name, amount):
    ctx = double(nn.Sequential(nn.Linear(9, 10), nn.Tanh(), nn.Linear(10, 3)), 9, n=40)
    result = adapt(ctx, Adaptation(build("grow", name, {}), All(), amount, Scope(seed_sizes={"0.weight:0": 10})))
    (event,) = result.events
    assert event.count == 2 and event.size_after == 12
    (said,) = result.skipped
    assert f"2 units instead of {40 if amount.of == 'now' else 10}" in said and "no more to offer" in said


@pytest.mark.parametrize("name", ["gradmax", "tiny", "gradmax_opt"])
@pytest.mark.parametrize("where", ["inputs", "loss", "weights"])
def test_statistics_that_are_not_finite_skip_the_event_and_leave_the_network_as_it_was(name, where):
    ctx = mixed()
    if where == "weights":
        with torch.no_grad():
            ctx.network.module.fc1.weight[0, 0] = float("nan")
    inputs, targets = next(iter(ctx.batches(1)))
    if where == "inputs":
        inputs = inputs.clone()
        inputs[3, 0, 0, 0] = float("inf")
        ctx = dataclasses.replace(ctx, batches=lambda count: [(inputs, targets)] * count)
    if where == "loss":
        ctx = dataclasses.replace(ctx, loss=lambda out, target: F.cross_entropy(out, target) * float("nan"))
    module = ctx.network.module
    before, gradients_before = everything(module), [p.grad for p in module.parameters()]
    result = adapt(ctx, Adaptation(build("grow", name, {"steps": 1} if name == "gradmax_opt" else {}), All(), 0.5))
    assert not result.events and "finite" in result.skipped[-1]
    after = everything(module)
    assert all(torch.equal(before[n].nan_to_num(7.0), after[n].nan_to_num(7.0)) for n in before) and before.keys() == after.keys()
    assert gradients_before == [p.grad for p in module.parameters()]
    assert where == "weights" or same(before, after)
    with frozen_modes(module):
        module(torch.randn(2, 3, 8, 8))
