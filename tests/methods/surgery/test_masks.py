"""Masks reach the average, and connections that come back start without momentum."""

import copy

import pytest
import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import MaskPlan
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower
from coppice.methods.surgery.masks import apply_masks, mask_gradients, mask_of
from coppice.methods.surgery.state_entries import SECOND_MOMENTS
from tests.methods.surgery.test_followers import OPTIMIZERS

NAME = "0.weight"


def masked(make):
    """A network after two masked training steps, its optimizer, and a mask in which entry [0, 0] is new and [0, 2] goes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network = Network(module, "x:y", {}, (torch.randn(4, 3),))
    mask = torch.ones(4, 3, dtype=torch.bool)
    optimizer = make(module.parameters())
    step(network, optimizer)
    mask[0, :2] = False
    apply(network, MaskPlan({NAME: mask}), [OptimizerFollower(optimizer, module)])
    step(network, optimizer)
    mask = mask.clone()
    mask[0, 0], mask[0, 2] = True, False
    return network, optimizer, mask


def step(network, optimizer):
    optimizer.zero_grad()
    network.module(torch.randn(4, 3)).pow(2).sum().backward()
    mask_gradients(network)
    optimizer.step()
    apply_masks(network)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_new_connections_have_no_momentum_and_the_others_keep_theirs(name):
    network, optimizer, mask = masked(OPTIMIZERS[name])
    weight, old = network.module[0].weight, mask_of(network, NAME)
    before = copy.deepcopy(optimizer.state[weight])
    apply(network, MaskPlan({NAME: mask}), [OptimizerFollower(optimizer, network.module)])
    kept, seen = mask & old, 0
    for key, value in optimizer.state[weight].items():
        if not isinstance(value, torch.Tensor) or value.shape != weight.shape:
            continue
        seen += 1
        assert float(before[key][0, 0]) != 0, "the optimizer must have had state for what was masked"
        expected = before[key].clone()
        expected[0, 0] = before[key][kept].mean() if key in SECOND_MOMENTS else 0
        assert torch.allclose(value, expected), key
    assert seen or name == "adafactor"


def test_rejected_masks_leave_the_state():
    network, optimizer, mask = masked(OPTIMIZERS["adam"])
    weight, old = network.module[0].weight, mask_of(network, NAME)
    before = copy.deepcopy(optimizer.state[weight])
    follower = OptimizerFollower(optimizer, network.module)
    assert not apply(network, MaskPlan({NAME: mask}), [follower], accept=lambda event: False).accepted
    assert torch.equal(network.masks[NAME], old)
    assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(before[k])) for k, v in optimizer.state[weight].items())


def test_the_average_is_masked_too():
    network, _, mask = masked(OPTIMIZERS["sgd"])
    average = copy.deepcopy(network.module)
    with torch.no_grad():
        average[0].weight.add_(1.0)
    birth = torch.zeros(4, 3)
    birth[0, 0] = 0.5
    apply(network, MaskPlan({NAME: mask}, adjust={NAME: birth}), [EmaFollower(average, network.module)])
    assert (average[0].weight[~mask] == 0).all() and (average[0].weight[1:] != network.module[0].weight[1:]).all()
    assert float(network.module[0].weight.detach()[0, 0]) == 0.5


def test_a_mask_is_a_copy():
    network, _, mask = masked(OPTIMIZERS["sgd"])
    apply(network, MaskPlan({NAME: mask}))
    mask.fill_(False)
    mask_of(network, NAME).fill_(False)
    assert network.masks[NAME].any() and mask_of(network, "2.weight").all()
