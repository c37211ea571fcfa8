"""Several optimizers over one network, other parameters in an optimizer, schedulers, scalers, names and tensor rates."""

import copy
import json

import pytest
import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state

PLANS = (
    GrowPlan("3.weight:0", 2), PrunePlan("3.weight:0", (0,)), InsertPlan("after:0", "residual_linear"), RemovePlan("0.grown_0"),
)  # fmt: skip
X = torch.linspace(-1, 1, 48).reshape(8, 6)


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return Network(module, "x:y", {}, (X,))


def step(module, *optimizers, factor=1.0):
    (module(X).pow(2).mean() * factor).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def muon_and_adamw(module):
    matrices = [p for p in module.parameters() if p.ndim == 2]
    others = [p for p in module.parameters() if p.ndim != 2]
    return torch.optim.Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=0.01)


def held(optimizer):
    return [id(p) for g in optimizer.param_groups for p in g["params"]]


def test_each_of_two_optimizers_follows_its_part():
    n = network()
    optimizers = muon_and_adamw(n.module)
    followers = [OptimizerFollower(o, n.module) for o in optimizers]
    step(n.module, *optimizers)
    for plan in PLANS:
        event = apply(n, plan, followers, certify=X)
        step(n.module, *optimizers)
        assert sorted(held(optimizers[0]) + held(optimizers[1])) == sorted(id(p) for p in n.module.parameters())
        assert all(p.ndim == 2 for g in optimizers[0].param_groups for p in g["params"])
        if isinstance(plan, InsertPlan):
            assert "0.grown_0.first.weight is trained by Muon, in the group of 0.weight" in event.notes
            assert "0.grown_0.first.bias is trained by AdamW, in the group of 0.bias" in event.notes


def test_a_matrix_optimizer_alone_gets_no_vectors():
    n = network()
    for p in n.module.parameters():
        p.requires_grad_(p.ndim == 2)
    muon = torch.optim.Muon([p for p in n.module.parameters() if p.ndim == 2], lr=0.01)
    before = held(muon)
    with pytest.raises(RuntimeError, match=r"0\.grown_0\.first\.bias of 1 dimensions .* \['Muon'\] train matrices only"):
        apply(n, InsertPlan("after:0", "residual_linear"), [OptimizerFollower(muon, n.module)])
    assert held(muon) == before and len(n.module[0]._modules) == 0


def test_a_parameter_in_two_optimizers_is_refused():
    n = network()
    followers = [OptimizerFollower(torch.optim.SGD(n.module.parameters(), 0.1), n.module) for _ in range(2)]
    with pytest.raises(RuntimeError, match="are in several"):
        apply(n, GrowPlan("3.weight:0", 2), followers)
    assert n.module[3].weight.shape == (8, 8)


def test_an_optimizer_of_other_tensors_is_refused():
    n = network()
    masters = [nn.Parameter(p.detach().double()) for p in n.module.parameters()]
    with pytest.raises(RuntimeError, match="SGD holds none of them"):
        apply(n, GrowPlan("3.weight:0", 2), [OptimizerFollower(torch.optim.SGD(masters, 0.1), n.module)])


def test_what_was_never_trained_need_not_be():
    n = network()
    optimizer = torch.optim.SGD(n.module[5].parameters(), 0.01, momentum=0.9)
    step(n.module, optimizer)
    apply(n, GrowPlan("3.weight:0", 2), [OptimizerFollower(optimizer, n.module)], certify=X)
    step(n.module, optimizer)
    assert optimizer.state[n.module[5].weight]["momentum_buffer"].shape == (3, 10)


def test_other_parameters_stay_as_they_are_and_go_through_a_round_trip():
    def make(module):
        temperature, centres = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.ones(2, 3))
        rest = [{"params": [temperature], "lr": 0.1}, {"params": [centres]}]
        return torch.optim.Adam([{"params": module.parameters()}, *rest], lr=0.01), temperature, centres

    def both(module, optimizer, temperature, centres):
        ((module(X) - centres.mean(0)) * temperature).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    n = network()
    trained = make(n.module)
    both(n.module, *trained)
    before = copy.deepcopy([trained[0].state[p] for p in trained[1:]])
    apply(n, GrowPlan("3.weight:0", 2), [OptimizerFollower(trained[0], n.module)], certify=X)
    for p, was in zip(trained[1:], before, strict=True):
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(was[k])) for k, v in trained[0].state[p].items())
    tensors, rest = optimizer_state(trained[0], n.module)
    assert tensors["outside/1/exp_avg"].shape == (2, 3) and rest["groups"][1]["parameters"] == ["outside/0"]
    again, values = copy.deepcopy(n.module), [p.detach().clone() for p in trained[1:]]
    fresh = make(again)
    for p, value in zip(fresh[1:], values, strict=True):
        p.data = value
    load_optimizer_state(fresh[0], again, tensors, json.loads(json.dumps(rest)))
    both(n.module, *trained)
    both(again, *fresh)
    for a, b in zip([*n.module.parameters(), *trained[1:]], [*again.parameters(), *fresh[1:]], strict=True):
        assert torch.equal(a, b)


def test_schedulers_and_scalers_go_on():
    n = network()
    optimizer = torch.optim.AdamW(n.module.parameters(), lr=torch.tensor(0.01))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def scaled():
        scaler.scale(n.module(X).pow(2).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()

    scaled()
    for plan in (GrowPlan("3.weight:0", 2), InsertPlan("after:0", "residual_linear"), PrunePlan("3.weight:0", (0,))):
        apply(n, plan, [OptimizerFollower(optimizer, n.module)])
        rate = float(optimizer.param_groups[0]["lr"])
        scaled()
        assert float(optimizer.param_groups[0]["lr"]) != rate
    tensors, rest = optimizer_state(optimizer, n.module)
    fresh = torch.optim.AdamW(n.module.parameters(), lr=torch.tensor(0.5))
    load_optimizer_state(fresh, n.module, tensors, json.loads(json.dumps(rest)))
    assert torch.equal(fresh.param_groups[0]["lr"], optimizer.param_groups[0]["lr"])


def test_between_backward_and_step_a_scaler_finds_the_gradients():
    n = network()
    optimizer, scaler = torch.optim.SGD(n.module.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(n.module(X).pow(2).mean()).backward()
    apply(n, GrowPlan("3.weight:0", 2), [OptimizerFollower(optimizer, n.module)])
    before = [p.detach().clone() for p in n.module.parameters()]
    scaler.step(optimizer)
    assert all(bool((p != b).any()) for p, b in zip(n.module.parameters(), before, strict=True))


def test_a_state_dict_fits_an_optimizer_made_anew():
    """New parameters stand where a fresh optimizer of the changed module has them, and so do their names."""
    n = network()
    optimizer = torch.optim.Adam(n.module.named_parameters(), lr=0.01)
    step(n.module, optimizer)
    follower = [OptimizerFollower(optimizer, n.module)]
    apply(n, InsertPlan("after:0", "residual_linear"), follower)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in n.module.named_parameters()]
    step(n.module, optimizer)
    apply(n, RemovePlan("3"), follower)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in n.module.named_parameters()]
    again = copy.deepcopy(n.module)
    fresh = torch.optim.Adam(again.named_parameters(), lr=0.5)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(n.module, optimizer)
    step(again, fresh)
    assert all(torch.equal(a, b) for a, b in zip(n.module.parameters(), again.parameters(), strict=True))


def test_lbfgs_starts_its_history_anew():
    n = network()
    optimizer = torch.optim.LBFGS(n.module.parameters(), lr=0.3, max_iter=4)

    def loss():
        optimizer.zero_grad()
        value = (n.module(X) - 1).pow(2).mean()
        value.backward()
        return value

    optimizer.step(loss)
    follower, before = [OptimizerFollower(optimizer, n.module)], copy.deepcopy(dict(optimizer.state[n.module[0].weight]))
    apply(n, GrowPlan("3.weight:0", 2), follower, accept=lambda event: False)
    assert torch.equal(optimizer.state[n.module[0].weight]["prev_flat_grad"], before["prev_flat_grad"])
    optimizer.step(loss)
    for plan in PLANS:
        value = float(loss().detach())
        assert any("history of LBFGS starts anew" in note for note in apply(n, plan, follower).notes)
        optimizer.step(loss)
        assert float(loss().detach()) <= 1.5 * value
        tensors, rest = optimizer_state(optimizer, n.module)
        again = copy.deepcopy(n.module)
        load_optimizer_state(torch.optim.LBFGS(again.parameters()), again, tensors, json.loads(json.dumps(rest)))
