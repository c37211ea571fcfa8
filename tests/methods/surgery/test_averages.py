"""Averaged copies change as the network does, wrapped or not, in place, also where no parameter comes or goes."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.followers import EmaFollower

X = torch.linspace(-1, 1, 4 * 3 * 36).reshape(4, 3, 6, 6)


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.5), nn.Flatten()]
    return Network(nn.Sequential(*layers, nn.Linear(128, 3)), "x:y", {}, (X,))


def averaged(n):
    average = AveragedModel(n.module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    with torch.no_grad():
        for p in average.parameters():
            p.mul_(1.1)
    return average.requires_grad_(False).eval()


@pytest.mark.parametrize("inner", (False, True))
def test_averaged_models_follow(inner):
    n = network()
    average = averaged(n)
    follower = [EmaFollower(average.module if inner else average, n.module)]
    held = {id(m) for m in average.modules()} | {id(p) for p in average.parameters()}
    for plan in (GrowPlan("0.weight:0", 2), InsertPlan("after:2", "residual_conv"), InsertPlan("after:2", "identity_conv")):
        before = average(X)
        apply(n, plan, follower)
        torch.testing.assert_close(average(X), before)
        average.update_parameters(n.module)
    for plan in (PrunePlan("0.weight:0", (0,)), RemovePlan("2.grown_0")):
        apply(n, plan, follower)
        average.update_parameters(n.module)
    assert held <= {id(m) for m in average.modules()} | {id(p) for p in average.parameters()}
    assert not any(p.requires_grad for p in average.parameters()) and not any(m.training for m in average.modules())
    assert [(k, p.shape) for k, p in average.module.named_parameters()] == [(k, p.shape) for k, p in n.module.named_parameters()]


def test_a_rejected_change_leaves_the_same_objects_with_the_same_values():
    n = network()
    average = averaged(n)
    follower = [EmaFollower(average, n.module)]
    for plan in (GrowPlan("0.weight:0", 2), InsertPlan("after:2", "residual_conv")):
        modules, tensors = [*average.modules()], [*average.parameters(), *average.buffers()]
        values = [t.clone() for t in tensors]

        def train(event):
            average.update_parameters(n.module)
            return False

        apply(n, plan, follower, accept=train)
        assert all(a is b for a, b in zip(modules, average.modules(), strict=True))
        now = [*average.module.parameters(), *average.module.buffers()]
        assert all(a is b for a, b in zip([*average.parameters(), *average.buffers()], tensors, strict=True))
        inside = {id(t) for t in now}
        assert all(torch.equal(v, t) for t, v in zip(tensors, values, strict=True) if id(t) in inside)


def test_another_network_is_refused():
    n = network()
    with pytest.raises(ValueError, match=r"a copy of the network's module, or hold one as `.module`, but Linear differs"):
        EmaFollower(nn.Linear(2, 2), n.module)
    average = averaged(n)
    follower = [EmaFollower(average, n.module)]
    apply(n, GrowPlan("0.weight:0", 2))
    with pytest.raises(PlanError, match=r"differs in \['0.bias', '0.weight'"):
        apply(n, PrunePlan("0.weight:0", (0,)), follower)
    assert n.module[0].weight.shape[0] == 10
