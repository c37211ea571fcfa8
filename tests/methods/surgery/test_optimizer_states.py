"""What an entry of an optimizer's state is to its parameter, and how it follows: shapes, matrices, copies, rules, refusals."""

import copy
import json

import pytest
import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, PrunePlan
from coppice.methods.surgery.changes import followed
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state
from coppice.methods.surgery.state_entries import register_state_rule

X = torch.linspace(-1, 1, 40).reshape(8, 5)
GROW, PRUNE = GrowPlan("0.weight:0", 2), PrunePlan("0.weight:0", (1, 4))
KEPT = torch.tensor([0, 2, 3, 5])


class Custom(torch.optim.Optimizer):
    """Plain descent; `make(p)` is the state of a parameter."""

    def __init__(self, params, make):
        self.make = make
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p].update(self.make(p))
                p.sub_(group["lr"] * p.grad)


def trained(make, sizes=(5, 6, 3), kind=Custom, **arguments):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:]))
    network = Network(module, "x:y", {}, (torch.randn(8, sizes[0]),))
    optimizer = kind(module.parameters(), make, **arguments)
    network.module(network.example_inputs[0]).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return network, optimizer, [OptimizerFollower(optimizer, module)]


def gram(n, seed=0):
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    return a @ a.T + torch.eye(n)


def matrices(p):
    statistics = [gram(n, i) for i, n in enumerate(p.shape)]
    return {"GG": statistics, "Q": [torch.linalg.qr(s)[0] for s in statistics]}


def numbered(p):
    return {**matrices(p), **{f"precond_{i}": gram(n) for i, n in enumerate(p.shape)}}


def test_matrices_follow_in_both_dimensions():
    network, optimizer, follower = trained(numbered)
    weight, after = network.module[0].weight, network.module[2].weight
    before = copy.deepcopy(optimizer.state[weight])
    apply(network, GROW, follower)
    state = optimizer.state[weight]
    for new, old in ((state["GG"][0], before["GG"][0]), (state["precond_0"], before["precond_0"])):
        expected = torch.block_diag(old, torch.eye(2) * old.diagonal().mean())
        torch.testing.assert_close(new, expected)
    torch.testing.assert_close(optimizer.state[weight]["Q"][0], torch.block_diag(before["Q"][0], torch.eye(2)))
    assert torch.equal(state["GG"][1], before["GG"][1])
    assert optimizer.state[after]["GG"][1].shape == (8, 8) and optimizer.state[after]["precond_0"].shape == (3, 3)
    apply(network, PRUNE, follower)
    torch.testing.assert_close(optimizer.state[weight]["GG"][0][:4, :4], before["GG"][0][KEPT][:, KEPT])
    q = optimizer.state[weight]["Q"][0]
    torch.testing.assert_close(q.T @ q, torch.eye(6))
    tensors, rest = optimizer_state(optimizer, network.module)
    again = copy.deepcopy(network.module)
    fresh = Custom(again.parameters(), None)
    load_optimizer_state(fresh, again, tensors, json.loads(json.dumps(rest)))
    assert all(torch.equal(a, b) for a, b in zip(fresh.state[again[0].weight]["Q"], optimizer.state[weight]["Q"], strict=True))


def test_matrices_of_square_weights_are_told_from_momenta():
    def make(p):
        return {**matrices(p), "left": gram(p.shape[0]), "mom": torch.randn_like(p)}

    network, optimizer, follower = trained(make, (6, 6, 6))
    weight = network.module[0].weight
    apply(network, GROW, follower)
    assert [m.shape[0] for m in optimizer.state[weight]["Q"]] == [8, 6] and optimizer.state[weight]["left"].shape == (8, 8)
    assert optimizer.state[weight]["mom"].shape == (8, 6) and not optimizer.state[weight]["mom"][6:].any()


def test_shapes_that_leave_a_doubt_are_refused():
    """A matrix over the rows or over the columns of square weights, with nothing else to tell it by."""
    network, optimizer, follower = trained(lambda p: {"left": gram(p.shape[0])} if p.ndim == 2 else {}, (6, 6, 6))
    with pytest.raises(PlanError, match=r"0\.weight of shape \(6, 6\) Custom keeps 'left' of shape \(6, 6\)"):
        apply(network, GROW, follower)
    assert network.module[0].weight.shape == (6, 6) and optimizer.state[network.module[0].weight]["left"].shape == (6, 6)


def test_factors_of_all_sorts_follow():
    def make(p):
        squares = p.detach().square()
        others = [tuple(e for e in range(p.ndim) if e != d) for d in range(p.ndim)]
        return {
            "rows": squares.mean(-1) if p.ndim > 1 else None,
            "by_dim": [squares.amax(dim=dims, keepdim=True) if dims else squares for dims in others],
            "flat": torch.arange(p.numel()).float() - 3,
            "history": torch.randn(4, *p.shape),
            "shape": p.shape,
            "count": torch.zeros(1),
            "norm": 3.5,
        }

    network, optimizer, follower = trained(make)
    weight = network.module[0].weight
    before = copy.deepcopy(optimizer.state[weight])
    apply(network, PRUNE, follower)
    state = optimizer.state[weight]
    assert torch.equal(state["rows"], before["rows"][KEPT]) and state["shape"] == (4, 5) and state["norm"] == 3.5
    assert torch.equal(state["by_dim"][0], before["by_dim"][0][KEPT]) and torch.equal(state["by_dim"][1], before["by_dim"][1])
    assert torch.equal(state["flat"].reshape(4, 5), before["flat"].reshape(6, 5)[KEPT])
    assert torch.equal(state["history"], before["history"][:, KEPT]) and torch.equal(state["count"], before["count"])
    apply(network, GROW, follower)
    torch.testing.assert_close(optimizer.state[weight]["rows"][4:], before["rows"][KEPT].mean().expand(2))
    assert not optimizer.state[weight]["flat"].reshape(6, 5)[4:].any()


def copies(p):
    slow = p.detach().double() + 0.01 * torch.randn_like(p)
    return {"z": slow, "looked_back": [p.detach().clone()], "moment": torch.randn_like(p)}


@pytest.mark.parametrize("plan", (GROW, PRUNE))
def test_copies_of_weights_change_as_the_weights_do(plan):
    network, optimizer, follower = trained(copies)
    module = network.module
    slow = copy.deepcopy(module).double()
    for p, s in zip(module.parameters(), slow.parameters(), strict=True):
        s.data = optimizer.state[p]["z"].clone()
    before = slow(X.double())
    apply(network, plan, follower)
    for p, s in zip(module.parameters(), slow.parameters(), strict=True):
        s.data = optimizer.state[p]["z"]
        assert s.dtype == torch.float64 and s.shape == p.shape == optimizer.state[p]["looked_back"][0].shape
    if plan is GROW:
        torch.testing.assert_close(slow(X.double()), before)
        new = optimizer.state[module[0].weight]["z"][6:]
        assert torch.equal(new.float(), module[0].weight[6:]) and new.any()
        assert not optimizer.state[module[0].weight]["moment"][6:].any()


def test_copies_follow_masks_and_a_rejected_change_leaves_all():
    network, optimizer, follower = trained(copies)
    weight = network.module[0].weight
    before = copy.deepcopy(optimizer.state[weight])
    apply(network, GROW, follower, accept=lambda event: False)
    assert all(torch.equal(a, b) for a, b in zip(optimizer.state[weight]["looked_back"], before["looked_back"], strict=True))
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[0] = False
    apply(network, MaskPlan({"0.weight": mask}), follower)
    assert not optimizer.state[weight]["z"][0].any() and torch.equal(optimizer.state[weight]["z"][1:], before["z"][1:])
    apply(network, InsertPlan("after:0", "residual_linear"), follower)
    assert torch.equal(optimizer.state[weight]["z"][1:], before["z"][1:])


class Own(Custom):
    """Resizes what it keeps itself."""

    def __init__(self, params, make):
        super().__init__(params, make)
        self.secret = {}

    def step(self, closure=None):
        super().step()
        for p in (p for g in self.param_groups for p in g["params"]):
            self.secret.setdefault(p, torch.ones(p.numel() + 1))

    def coppice_resized(self, parameter, changes):
        self.secret[parameter] = torch.ones(parameter.numel() + 1)
        self.state[parameter]["odd"] = torch.zeros(len(changes), 9)


def test_an_optimizer_may_do_it_itself():
    network, optimizer, follower = trained(lambda p: {"odd": torch.zeros(7)}, kind=Own)
    weight = network.module[0].weight
    apply(network, GROW, follower, accept=lambda event: False)
    assert optimizer.secret[weight].shape == (31,) and optimizer.state[weight]["odd"].shape == (7,)
    apply(network, GROW, follower)
    assert optimizer.secret[weight].shape == (41,) and optimizer.state[weight]["odd"].shape == (1, 9)


def test_a_rule_says_it_for_one_entry():
    class Ruled(Custom):
        pass

    def rule(value, parameter, changes):
        for change in changes:
            value = followed(value, change, fill=7.0)
        return value

    network, optimizer, follower = trained(lambda p: {"odd": torch.zeros(p.shape, dtype=torch.uint8)}, kind=Ruled)
    with pytest.raises(PlanError, match=r"'odd' of shape \(6, 5\) \(uint8\).*register_state_rule\(Ruled, 'odd', rule\)"):
        apply(network, GROW, follower)
    register_state_rule(Ruled, "odd", rule)
    apply(network, GROW, follower)
    assert bool((optimizer.state[network.module[0].weight]["odd"][6:] == 7).all())


class Projector:
    pass


@pytest.mark.parametrize("value", (torch.zeros(2, 2, 2), Projector(), torch.zeros(7)))
def test_what_cannot_be_understood_is_refused_only_where_it_would_have_to_follow(value):
    network, _, follower = trained(lambda p: {"inner": {"odd": value}} if p.shape == (3, 6) else {})
    with pytest.raises(PlanError, match=r"2\.weight of shape \(3, 6\) Custom keeps 'inner\[odd\]'"):
        apply(network, GROW, follower)
    apply(network, InsertPlan("after:0", "residual_linear"), follower)


def test_tensors_in_attributes_that_would_have_to_follow_are_refused():
    network, optimizer, follower = trained(lambda p: {})
    optimizer.slow = [[p.detach().clone() for p in g["params"]] for g in optimizer.param_groups]
    with pytest.raises(PlanError, match=r"of shape \(6, 5\), as 0\.weight may need it, in its attribute 'slow'"):
        apply(network, GROW, follower)


class Lookahead(torch.optim.Optimizer):
    """Wraps an optimizer, shares its groups and keeps slow weights in a state of its own."""

    def __init__(self, optimizer):
        super().__init__(optimizer.param_groups, {})
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        self.optimizer.step()
        for p in (p for g in self.param_groups for p in g["params"]):
            slow = self.state[p].setdefault("slow_param", p.clone())
            p.copy_(slow.lerp_(p, 0.5))


def test_wrappers_follow_with_what_they_wrap():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    network, optimizer = Network(module, "x:y", {}, (X,)), Lookahead(torch.optim.Adam(module.parameters(), lr=0.01))

    def step():
        module(X).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    for plan in (GROW, PRUNE, InsertPlan("after:0", "residual_linear")):
        apply(network, plan, [OptimizerFollower(optimizer, module)])
        before = [p.detach().clone() for p in module.parameters()]
        step()
        assert all((p - b).abs().max() < 0.02 for p, b in zip(module.parameters(), before, strict=True))
        assert len(optimizer.optimizer.state) == len(list(module.parameters())) == len(optimizer.state)
