import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.surgery.carry_out import resize_all
from coppice.methods.surgery.resize import narrowing, widening
from coppice.methods.surgery.shrink import Shrinking, advance
from tests.support.zoo import layerscale, lstm, resnet, shared, tied_lm, vit_sep


class Two(nn.Module):
    def __init__(self, norm: bool = False, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.activation = activation or nn.ReLU()

    def forward(self, x):
        return self.b(self.activation(self.norm(self.a(x))))


def network(module: nn.Module, *shape: int) -> Network:
    return Network(module.double(), "x:y", {}, (torch.randn(*shape, dtype=torch.float64),))


def error(event) -> float:
    return event.function_change / event.function_scale


def test_hooks_ties_flags_and_modes_stay():
    torch.manual_seed(0)
    n = Network(tied_lm(), "x:y", {}, (torch.randint(0, 50, (2, 7)),))
    m = n.module
    calls = []
    m.tok.weight.register_hook(lambda g: calls.append(g.shape))
    m.blk.f1.weight.requires_grad_(False)
    m.blk.eval()
    apply(n, GrowPlan("tok.weight:1", 4))
    assert m.lm.weight is m.tok.weight and m.tok.weight.shape == (50, 36) and m.tok.embedding_dim == 36
    assert m.lm.in_features == 36 and m.blk.n1.normalized_shape == (36,) and m.blk.f1.in_features == 36
    assert not m.blk.f1.weight.requires_grad and m.training and not m.blk.training
    m(*n.example_inputs).sum().backward()
    assert calls == [torch.Size([50, 36])]
    assert {"blk.n1|eps", "blk.n2|eps", "norm|eps"} <= n.attributes.keys()


def test_an_old_graph_may_be_alive():
    torch.manual_seed(0)
    n = network(Two(), 2, 3, 8, 8)
    alive = n.module(*n.example_inputs).sum()
    n.module.a.weight.grad = torch.ones_like(n.module.a.weight)
    apply(n, GrowPlan("a.weight:0", 2))
    assert n.module.a.weight.grad.shape == n.module.a.weight.shape
    n.module(*n.example_inputs).sum().backward()
    assert n.module.b.weight.grad[:, 6:].any()
    del alive


@pytest.mark.parametrize("dims", [("a.weight:0", "b.weight:1"), ("a.bias:0",)])
def test_given_values_stand_in_the_new_entries(dims):
    torch.manual_seed(0)
    n = network(Two(), 2, 3, 8, 8)
    shapes = {"a.weight:0": (2, 3, 3, 3), "a.bias:0": (2,), "b.weight:1": (4, 2, 3, 3)}
    values = {d: torch.randn(shapes[d], dtype=torch.float64) for d in dims}
    apply(n, GrowPlan("a.weight:0", 2, values=values))
    for d, value in values.items():
        name, dim = d.split(":")
        assert torch.equal(n.module.get_parameter(name).narrow(int(dim), 6, 2), value)


def test_values_for_both_dimensions_of_one_tensor():
    torch.manual_seed(0)
    n = network(shared(8), 2, 3, 8, 8)
    old = n.module.conv.weight.detach().clone()
    rows, columns = torch.randn(2, 8, 3, 3).double(), torch.randn(8, 2, 3, 3).double()
    apply(n, GrowPlan("stem.weight:0", 2, values={"conv.weight:0": rows, "conv.weight:1": columns}))
    new = n.module.conv.weight
    assert torch.equal(new[:8, :8], old) and torch.equal(new[8:, :8], rows) and torch.equal(new[:8, 8:], columns)
    assert not new[8:, 8:].any()


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("norm", [False, True])
def test_copies_share_what_their_source_gave(norm, noise):
    """Net2Wider (Chen et al. 2016), algorithm 1."""
    torch.manual_seed(0)
    n = network(Two(norm), 2, 3, 8, 8)
    if norm:
        n.module.norm.running_mean.normal_()
        n.module.norm.running_var.uniform_(0.5, 2)
    old = copy.deepcopy(n.module)
    event = apply(n, GrowPlan("a.weight:0", 3, sources=(2, 2, 5), noise=noise), certify=n.example_inputs)
    assert error(event) < 1e-12
    m = n.module
    assert torch.equal(m.a.weight[6:], old.a.weight[[2, 2, 5]]) and torch.equal(m.a.bias[6:], old.a.bias[[2, 2, 5]])
    if norm:
        assert torch.equal(m.norm.running_var[6:], old.norm.running_var[[2, 2, 5]])
    if not noise:
        torch.testing.assert_close(m.b.weight[:, [2, 6, 7]], old.b.weight[:, [2, 2, 2]] / 3)
    else:
        assert not torch.equal(m.b.weight[:, 6], m.b.weight[:, 7])


def test_batch_norm_rows_of_new_channels():
    torch.manual_seed(0)
    n = network(Two(True), 2, 3, 8, 8)
    n.module.norm.running_var.uniform_(0.5, 2)
    apply(n, GrowPlan("a.weight:0", 2))
    norm = n.module.norm
    rows = [t[6:].tolist() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    assert rows == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert norm.num_features == 8 and n.module.a.out_channels == 8 and n.module.b.in_channels == 8
    assert n.module.a.weight[6:].any() and not n.module.b.weight[:, 6:].any()


def test_random_fills_are_seeded_and_scaled():
    def rows(**plan):
        torch.manual_seed(0)
        n = network(nn.Sequential(nn.Linear(400, 6), nn.ReLU(), nn.Linear(6, 2)), 2, 400)
        apply(n, GrowPlan("0.weight:0", 40, **plan))
        return n.module[0].weight[6:].detach()

    assert torch.equal(rows(seed=3), rows(seed=3)) and not torch.equal(rows(seed=3), rows(seed=4))
    assert float(rows().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert float(rows(scale=0.1).std()) == pytest.approx(0.1 * math.sqrt(2 / 400), rel=0.02)
    q = rows(produce="orthogonal")
    torch.testing.assert_close(q @ q.T, torch.eye(40).double() * float(q[0] @ q[0]), atol=1e-5, rtol=0)
    assert not rows(produce="zero").any()


def test_merging_proportional_channels_is_exact():
    torch.manual_seed(0)
    n = network(Two(), 2, 3, 8, 8)
    with torch.no_grad():
        n.module.a.weight[1], n.module.a.bias[1] = 0.5 * n.module.a.weight[4], 0.5 * n.module.a.bias[4]
    event = apply(n, PrunePlan("a.weight:0", (1,), "merge", merge={1: (4, 0.5)}), certify=n.example_inputs)
    assert error(event) < 1e-12


def test_merging_behind_flatten_is_exact():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 5))
    n = network(module, 2, 3, 3, 3)
    with torch.no_grad():
        module[0].weight[3], module[0].bias[3] = 2 * module[0].weight[0], 2 * module[0].bias[0]
    assert error(apply(n, PrunePlan("0.weight:0", (3,), "merge", merge={3: (0, 2.0)}), certify=n.example_inputs)) < 1e-12


def test_absorbing_constant_channels_is_exact():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(2 * 16, 5))
    n = network(module, 2, 3, 8, 8)
    with torch.no_grad():
        module[0].weight[[0, 2]] = 0
        module[0].bias[[0, 2]] = torch.tensor([0.7, -0.3], dtype=torch.float64)
    event = apply(n, PrunePlan("0.weight:0", (0, 2), "absorb", constants=(0.7, 0.0)), certify=n.example_inputs)
    assert error(event) < 1e-12 and module[2].weight.shape == (2, 2, 3, 3)


class HandwrittenNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(width) + 0.5), 0.1

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon) * self.weight


def test_a_norm_written_by_hand():
    torch.manual_seed(0)
    n = network(nn.Sequential(nn.Linear(6, 8), HandwrittenNorm(8), nn.Linear(8, 3)), 4, 6)
    assert error(apply(n, GrowPlan("0.weight:0", 2), certify=n.example_inputs)) < 1e-12
    assert n.attributes == {"1|variance_epsilon": pytest.approx(0.08)} and n.module[2].weight[:, 8:].all()


class Stored(nn.Module):
    """Attention whose scale is a stored number, over a stream normalised by RMSNorm."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, 4
        self.scale = 4**-0.5
        self.embed, self.norm = nn.Linear(6, 8), nn.RMSNorm(8)
        self.q, self.kv, self.o = nn.Linear(8, 4 * heads), nn.Linear(8, 8 * heads), nn.Linear(4 * heads, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        y = self.norm(x)
        b, t, _ = y.shape
        q = self.q(y).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k, v = self.kv(y).view(b, t, 2, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        z = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1) @ v
        x = x + self.o(z.transpose(1, 2).reshape(b, t, self.heads * self.head_dim))
        return self.head(x)


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("grow", [True, False])
def test_rms_norm_streams_and_stored_attention_scales(grow, heads):
    for mark in ("rmsnorm", "attention_scale"):
        torch.manual_seed(0)
        n = network(Stored(heads), 2, 5, 6)
        nn.init.uniform_(n.module.norm.weight, 0.5, 1.5)
        element = next(e for e in n.elements() if mark in e.compensation and e.permissible)
        if grow:
            plan = GrowPlan(element.name, 2 * element.quantum)
        else:
            plan = PrunePlan(element.name, (1,))
            advance(n, Shrinking(element.name, (1,), 1))
        assert error(apply(n, plan, certify=n.example_inputs)) < 1e-12
        if mark == "attention_scale":
            assert n.module.scale == 0.5 and "|scale" not in n.attributes
        else:
            assert n.attributes["norm|eps"] == n.module.norm.eps


@pytest.mark.parametrize("heads", [3, 4])
def test_head_sizes_of_fused_attention(heads):
    torch.manual_seed(0)
    n = Network(tied_lm(50, 8 * heads, heads).double(), "x:y", {}, (torch.randint(0, 50, (2, 7)),))
    element = next(e for e in n.elements() if e.compensation == ("attention_scale",) and e.permissible)
    assert error(apply(n, GrowPlan(element.name, 2), certify=n.example_inputs)) < 1e-12


def test_new_units_behind_a_norm_are_alive():
    torch.manual_seed(0)
    n = Network(vit_sep().double(), "x:y", {}, (torch.randn(2, 3, 32, 32).double(),))
    apply(n, GrowPlan("patch.weight:0", 4))
    n.module(*n.example_inputs).pow(2).sum().backward()
    m = n.module
    for parameter in (m.patch.weight, m.blocks[0].n1.bias, m.blocks[1].f2.weight):
        assert parameter.grad[-4:].any()
    assert m.cls.grad[..., -4:].any()


def test_many_elements_in_one_pass_equal_one_after_another():
    torch.manual_seed(0)
    one, many = (Network(resnet(), "x:y", {}, (torch.randn(2, 3, 32, 32),)) for _ in range(2))
    many.module.load_state_dict(one.module.state_dict())
    names = [e.name for e in one.elements() if e.level == "channel" and e.permissible]
    resize_all(many, [narrowing(many.element(name), range(0, many.element(name).size, 2)) for name in names], ())
    for name in names:
        apply(one, PrunePlan(name, tuple(range(0, one.element(name).size, 2))))
    for (name, a), b in zip(one.module.state_dict().items(), many.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    resize_all(many, [widening(many.element(name), GrowPlan(name, 3)) for name in names], ())
    x = one.example_inputs
    torch.testing.assert_close(many.module.eval()(*x), one.module.eval()(*x))


def test_recurrent_sizes_follow():
    torch.manual_seed(0)
    n = Network(lstm(), "x:y", {}, (torch.randn(2, 5, 12),))
    apply(n, GrowPlan("rnn.weight_ih_l0:0/0", 3))
    apply(n, GrowPlan("a.weight:0", 1))
    assert (n.module.rnn.hidden_size, n.module.rnn.input_size) == (19, 9)
    states, _ = n.module.rnn(torch.randn(1, 2, 9))
    assert states.shape == (1, 2, 19)


def test_layer_scales_of_new_channels_do_not_change_the_function():
    torch.manual_seed(0)
    n = network(layerscale(16), 2, 3, 8, 8)
    assert error(apply(n, GrowPlan("stem.weight:0", 2), certify=n.example_inputs)) < 1e-12
    assert F.relu(n.module.gamma[16:]).all()


def test_copies_that_move_away_and_new_units_come_in_one_plan():
    torch.manual_seed(0)
    n = network(Two(norm=True), 2, 3, 8, 8)
    nn.init.uniform_(n.module.norm.weight)
    old = {name: t.clone() for name, t in n.module.state_dict().items()}
    moved, out = torch.randn(3, 3, 3, 3).double(), torch.randn(4, 3, 3, 3).double()
    offsets = {"a.weight:0": moved, "b.weight:1": out, "norm.running_mean:0": torch.tensor([0.0, 3.0, 0.0])}
    apply(n, GrowPlan("a.weight:0", 3, (2, -1, 2), produce="zero", offsets=offsets))
    m = n.module
    assert torch.equal(m.a.weight[6:], torch.stack([old["a.weight"][2], torch.zeros(3, 3, 3), old["a.weight"][2]]) + moved)
    assert torch.equal(m.norm.weight[6:], torch.stack([old["norm.weight"][2], torch.tensor(1.0), old["norm.weight"][2]]))
    assert m.norm.running_mean[7] == 3.0 and m.a.bias[7] == 0.0
    third = old["b.weight"][:, 2] / 3
    expected = torch.stack([third, torch.zeros_like(third), third], dim=1) + out
    assert torch.allclose(m.b.weight[:, 6:], expected, rtol=1e-14) and torch.allclose(m.b.weight[:, 2], third, rtol=1e-14)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(m.b.weight[:, others], old["b.weight"][:, others])


def test_offsets_follow_what_grew_before_in_the_same_step():
    from coppice.methods.adaptation.pending_plans import PendingPlans

    torch.manual_seed(0)
    n = network(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), 2, 3)
    first = GrowPlan("0.weight:0", 2, (1, 3))
    waiting = PendingPlans([GrowPlan("2.weight:0", 1, (0,), offsets={"2.weight:0": torch.ones(1, 4).double()})])
    apply(n, first, [waiting])
    halved = n.module[2].weight[0].clone()
    apply(n, waiting.next())
    assert torch.equal(n.module[2].weight[5], halved + torch.tensor([1.0, 1, 1, 1, 0, 0]))
