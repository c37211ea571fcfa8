import copy

import pytest
import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.coverage import Coverage
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower
from tests.support.zoo import image, resnet

SECOND = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "variance", "row_var", "col_var", "sum"}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-3),
}


def setup(make):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    network = Network(module, "x:y", {}, (torch.randn(4, 5),))
    optimizer = make(module.parameters())
    for _ in range(2):
        step(network, optimizer)
    return network, optimizer


def step(network, optimizer):
    optimizer.zero_grad()
    network.module(torch.randn(4, 5)).pow(2).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_follow(name):
    network, optimizer = setup(OPTIMIZERS[name])
    module = network.module
    dims = {module[0].weight: 0, module[0].bias: 0, module[2].weight: 1}
    before = {p: copy.deepcopy(optimizer.state[p]) for p in dims}
    follower = [OptimizerFollower(optimizer, module)]
    apply(network, PrunePlan("0.weight:0", (1, 4)), follower)
    apply(network, GrowPlan("0.weight:0", 3), follower)
    for p, dim in dims.items():
        assert optimizer.state[p].keys() == before[p].keys()
        for key, old in before[p].items():
            now = optimizer.state[p][key]
            if key in ("row_var", "col_var"):
                continue
            if not isinstance(old, torch.Tensor) or old.ndim == 0:
                assert torch.equal(torch.as_tensor(now), torch.as_tensor(old)), key
                continue
            kept = old.index_select(dim, torch.tensor([0, 2, 3, 5]))
            assert torch.equal(now.narrow(dim, 0, 4), kept), key
            fresh = now.narrow(dim, 4, 3)
            if key in SECOND:
                torch.testing.assert_close(fresh, kept.mean(dim, keepdim=True).expand_as(fresh))
            else:
                assert not fresh.any(), key
    was = [p.detach().clone() for p in module.parameters()]
    for _ in range(2):
        step(network, optimizer)
    assert all((p != w).any() for p, w in zip(module.parameters(), was, strict=True))
    assert module[0].weight.shape == (7, 5)


@pytest.mark.parametrize("dim", (0, 1))
def test_factored_second_moments_keep_their_products(dim):
    """The estimate of a kept weight, row * column / mean(row), is the same after rows or columns went and came."""
    network, optimizer = setup(OPTIMIZERS["adafactor"])
    module = network.module
    weight = module[0].weight if dim == 0 else module[2].weight

    def estimate():
        state = optimizer.state[weight]
        return state["row_var"] @ state["col_var"] / state["row_var"].mean(-2, keepdim=True)

    before = estimate()
    follower = [OptimizerFollower(optimizer, module)]
    apply(network, PrunePlan("0.weight:0", (1, 4)), follower)
    kept = before.index_select(dim, torch.tensor([0, 2, 3, 5]))
    torch.testing.assert_close(estimate(), kept)
    apply(network, GrowPlan("0.weight:0", 3), follower)
    torch.testing.assert_close(estimate().narrow(dim, 0, 4), kept)
    torch.testing.assert_close(estimate().narrow(dim, 4, 3), kept.mean(dim, keepdim=True).expand_as(estimate().narrow(dim, 4, 3)))
    step(network, optimizer)


def test_state_of_another_shape_is_refused_before_anything_is_touched():
    network, optimizer = setup(OPTIMIZERS["adam"])
    weight = network.module[0].weight
    optimizer.state[weight]["odd"] = torch.zeros(7)
    before = copy.deepcopy(network.module.state_dict())
    with pytest.raises(PlanError, match=r"0\.weight of shape \(6, 5\) Adam keeps 'odd' of shape \(7,\)"):
        apply(network, GrowPlan("0.weight:0", 1), [OptimizerFollower(optimizer, network.module)])
    assert all(torch.equal(v, before[k]) for k, v in network.module.state_dict().items())
    assert optimizer.state[weight]["exp_avg"].shape == (6, 5)
    step(network, optimizer)


def grown_resnet():
    torch.manual_seed(0)
    network = Network(resnet(), "tests.support.zoo:resnet", {}, image())
    decay = [p for p in network.module.parameters() if p.ndim > 1]
    plain = [p for p in network.module.parameters() if p.ndim == 1]
    return network, torch.optim.AdamW([{"params": decay}, {"params": plain, "weight_decay": 0.0}])


def test_new_parameters_join_the_group_of_their_relatives_and_removed_ones_leave():
    network, optimizer = grown_resnet()
    ema = copy.deepcopy(network.module)
    followers = [OptimizerFollower(optimizer, network.module), EmaFollower(ema, network.module)]
    before = [len(g["params"]) for g in optimizer.param_groups]
    apply(network, InsertPlan("after:layers.0", "residual_conv", {"batch_norm": True}), followers)
    assert all(p.ndim > 1 for p in optimizer.param_groups[0]["params"])
    assert all(p.ndim == 1 for p in optimizer.param_groups[1]["params"])
    assert sum(len(g["params"]) for g in optimizer.param_groups) > sum(before)
    network.module.eval(), ema.eval()
    x = network.example_inputs
    torch.testing.assert_close(ema(*x), network.module(*x))
    apply(network, RemovePlan("layers.0"), followers)
    network.module.eval(), ema.eval()
    torch.testing.assert_close(ema(*x), network.module(*x))
    assert [n for n, _ in ema.named_parameters()] == [n for n, _ in network.module.named_parameters()]


def test_both_directions_of_the_check():
    network, optimizer = grown_resnet()
    followers = [OptimizerFollower(optimizer, network.module)]
    coverage = Coverage.before(network.module, followers)
    coverage.check(network.module, followers)
    held = optimizer.param_groups[0]["params"].pop()
    with pytest.raises(RuntimeError, match=r"\['fc\.weight'\] are not trained any more"):
        coverage.check(network.module, followers)
    optimizer.param_groups[1]["params"] += [held, held]
    with pytest.raises(RuntimeError, match=r"\['fc\.weight'\] are in several"):
        coverage.check(network.module, followers)
    optimizer.param_groups[1]["params"].pop()
    network.module.fc = nn.Identity()
    with pytest.raises(RuntimeError, match=r"\['fc\.bias', 'fc\.weight'\] are no longer in the network"):
        coverage.check(network.module, followers)


def test_a_replaced_parameter_is_caught():
    network, optimizer = grown_resnet()
    network.module.fc.bias = nn.Parameter(torch.zeros(10))
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        apply(network, GrowPlan("layers.0.conv1.weight:0", 1), [OptimizerFollower(optimizer, network.module)])
