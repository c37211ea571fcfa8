"""What a network holds beside its weights, when units come and go."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, PrunePlan
from coppice.methods.surgery.check import PlanError


def network(module: nn.Module, *shape: int) -> Network:
    torch.manual_seed(0)
    return Network(module.double().eval(), "x:y", {}, (torch.randn(*shape, dtype=torch.float64),))


def error(event) -> float:
    return event.function_change / event.function_scale


def test_masks_of_prune_are_one_for_new_weights():
    n = network(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 4, 6)
    for i in (0, 2):
        prune.l1_unstructured(n.module[i], "weight", amount=0.3)
    before = n.module[0].weight_mask.clone()
    assert error(apply(n, GrowPlan("0.weight_orig:0", 2), certify=n.example_inputs)) < 1e-12
    masks = n.module[0].weight_mask, n.module[2].weight_mask
    assert torch.equal(masks[0][:8], before) and masks[0][8:].all() and masks[1][:, 8:].all()
    assert n.module[0].out_features == n.module[2].in_features == 10
    n.module(*n.example_inputs).pow(2).sum().backward()
    assert n.module[2].weight_orig.grad[:, 8:].any()


class FrozenNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def test_fixed_values_of_units_go_with_them_but_none_is_made_up():
    n = network(nn.Sequential(nn.Conv2d(3, 8, 3), FrozenNorm(8), nn.ReLU(), nn.Conv2d(8, 4, 3)), 2, 3, 8, 8)
    element = n.element("0.weight:0")
    assert (element.permissible, element.grow) == (True, "no") and "1.weight" in element.fixed
    with pytest.raises(PlanError, match=r"the buffer 1\.weight holds a value for each unit"):
        apply(n, GrowPlan("0.weight:0", 2))
    kept = n.module[1].bias[[0, 2, 3, 4, 5, 6, 7]].clone()
    apply(n, PrunePlan("0.weight:0", (1,)))
    assert torch.equal(n.module[1].bias, kept)


class Blur(nn.Module):
    """A fixed kernel for each channel; `equal` says whether they are the same one."""

    def __init__(self, width: int, equal: bool) -> None:
        super().__init__()
        kernel = torch.rand(1 if equal else width, 1, 3, 3).expand(width, 1, 3, 3).clone()
        self.register_buffer("kernel", kernel)

    def forward(self, x):
        return F.conv2d(x, self.kernel, groups=x.shape[1])


@pytest.mark.parametrize("equal", [True, False])
def test_fixed_kernels_are_copied_where_they_are_the_same_for_all_units(equal):
    n = network(nn.Sequential(nn.Conv2d(3, 8, 3), Blur(8, equal), nn.Conv2d(8, 4, 3)), 2, 3, 8, 8)
    if equal:
        assert error(apply(n, GrowPlan("0.weight:0", 2), certify=n.example_inputs)) < 1e-12
        assert torch.equal(n.module[1].kernel[8], n.module[1].kernel[0]) and n.module[1].kernel[8].any()
    else:
        assert n.element("0.weight:0").grow == "no"
        apply(n, PrunePlan("0.weight:0", (3,)))
        assert len(n.module[1].kernel) == 7


def test_vectors_of_spectral_norm_follow():
    layers = [nn.utils.parametrizations.spectral_norm(nn.Linear(*s)) for s in ((6, 8), (8, 3))]
    n = network(nn.Sequential(layers[0], nn.Tanh(), layers[1]), 4, 6)
    element = next(e for e in n.elements() if e.permissible and e.level == "channel")
    n.module.train()
    assert error(apply(n, GrowPlan(element.name, 2), certify=n.example_inputs)) < 1e-12 and element.grow == "exact"
    n.module.train()(*n.example_inputs).sum().backward()
    assert len(n.module[0].parametrizations.weight[0]._u) == 10


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        assert self.num_features == x.shape[1]
        return torch.relu(super().forward(x))


class OwnLinear(nn.Linear):
    """Adds nothing."""


class ChannelsNorm(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


@pytest.mark.parametrize("norm", [OwnNorm, ChannelsNorm])
def test_layers_derived_from_torchs_own_are_as_these(norm):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.Conv2d(8, 5, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                           OwnLinear(5, 6), nn.Tanh(), OwnLinear(6, 3))  # fmt: skip
    n = network(module, 2, 3, 8, 8)
    for name in ("0.weight:0", "2.weight:0", "6.weight:0"):
        assert n.element(name).doubt is None
        assert error(apply(n, GrowPlan(name, 2), certify=n.example_inputs)) < 1e-12
    assert module[6].out_features == module[8].in_features == 8 and module[6].in_features == 7
