"""The named networks have the published numbers of parameters, take every task's data, and can be traced."""

from typing import Any

import pytest
import torch
from torch import nn

from coppice.methods.graph.elements import elements
from coppice.methods.networks.catalog import NETWORKS, arguments_for, network_reference
from coppice.methods.networks.mlp import ACTIVATIONS, mlp
from coppice.methods.networks.resnet import resnet
from coppice.methods.networks.vgg import vgg11, vgg13, vgg16
from coppice.methods.networks.wide_resnet import wide_resnet
from coppice.methods.record.architecture import ArchitectureError, import_factory


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("depth", "published"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_imagenet_resnets_have_the_published_parameters(depth: int, published: int) -> None:
    with torch.device("meta"):
        assert num_parameters(resnet(1000, depth=depth, stem="imagenet")) == published


@pytest.mark.parametrize(("depth", "with_identity_skips"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_cifar_resnets_have_the_published_parameters_and_two_projections(depth: int, with_identity_skips: int) -> None:
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    with torch.device("meta"):
        assert num_parameters(resnet(10, depth=depth)) == with_identity_skips + projections


@pytest.mark.parametrize(("depth", "width", "published"), [(28, 10, 36_479_194), (16, 8, 10_961_370), (40, 4, 8_949_210)])
def test_wide_resnets_have_the_published_parameters(depth: int, width: int, published: int) -> None:
    with torch.device("meta"):
        assert num_parameters(wide_resnet(10, depth=depth, width=width)) == published


@pytest.mark.parametrize(("build", "published"), [(vgg11, 9_220_480), (vgg13, 9_404_992), (vgg16, 14_714_688)])
def test_vgg_features_have_the_published_parameters(build: Any, published: int) -> None:
    """With normalisation the convolutions have no biases, and each normalisation has as many weights and biases."""
    with torch.device("meta"):
        plain, normalised = build(10, batch_norm=False), build(10)
    biases = sum(m.bias.numel() for m in plain.features if isinstance(m, nn.Conv2d) and m.bias is not None)
    assert num_parameters(plain.features) == published
    assert num_parameters(normalised.features) == published - biases + 2 * biases
    assert plain.classifier.in_features == 512


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
def test_every_network_takes_every_kind_of_image(name: str, shape: tuple[int, ...]) -> None:
    module = build(name, shape, 7, width=0.25) if name not in ("mlp", "dag") else build(name, shape, 7)
    output = module(torch.randn(2, *shape))
    assert output.shape == (2, 7)
    output.sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def build(name: str, shape: tuple[int, ...], num_outputs: int, **given: Any) -> nn.Module:
    return import_factory(network_reference(name))(**arguments_for(name, shape, num_outputs, given))


@pytest.mark.parametrize(
    "factory",
    [lambda w: resnet(10, depth=8, width=w), lambda w: wide_resnet(10, depth=10, width=w), lambda w: vgg11(10, width=w)],
)
def test_width_scales_every_layer_but_never_to_nothing(factory: Any) -> None:
    assert num_parameters(factory(0.25)) < num_parameters(factory(0.5)) < num_parameters(factory(1.0))
    assert all(p.numel() for p in factory(0.001).parameters())
    with pytest.raises(ValueError, match="width > 0 must hold, but got width=0"):
        factory(0)


def test_inner_width_is_between_the_convolutions_of_a_block_only() -> None:
    full, seed = wide_resnet(10, width=1), wide_resnet(10, width=1, inner_width=0.25, inner_norm=False)
    blocks = [m for m in seed.modules() if type(m).__name__ == "PreActivationBlock"]
    assert [b.conv1.out_channels for b in blocks] == [4] * 4 + [8] * 4 + [16] * 4
    assert [b.conv2.out_channels for b in blocks] == [16] * 4 + [32] * 4 + [64] * 4
    assert not any(isinstance(b.norm2, nn.BatchNorm2d) for b in blocks)
    assert num_parameters(seed) < num_parameters(full)


def test_a_wide_block_by_hand() -> None:
    block = wide_resnet(10, depth=10, width=2).stages[0][0]
    x = torch.randn(2, 16, 4, 4)
    first = torch.relu(block.norm1(x))
    expected = block.shortcut(first) + block.conv2(torch.relu(block.norm2(block.conv1(first))))
    assert torch.allclose(block(x), expected)


def test_vgg_without_normalisation_learns() -> None:
    """Its weights begin so that the signal reaches the end."""
    torch.manual_seed(0)
    with torch.no_grad():
        deviation = vgg16(10, batch_norm=False, width=0.25)(torch.randn(64, 3, 32, 32)).std(0).mean()
    assert 0.02 < float(deviation) < 2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_of_each_activation(activation: str) -> None:
    module = mlp(6, 2, hidden=[5, 4], activation=activation, batch_norm=True)
    assert module(torch.randn(3, 2, 3)).shape == (3, 2)
    assert sum(isinstance(m, ACTIVATIONS[activation]) for m in module.modules()) == 2
    assert [m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm1d)] == [5, 4]
    assert not any(isinstance(m, nn.BatchNorm1d) for m in mlp(6, 2).modules())


def test_mlp_by_hand() -> None:
    module = mlp(3, 2, hidden=[4])
    x = torch.randn(5, 3)
    expected = module.output(torch.relu(module.hidden[0](x)))
    assert torch.equal(module(x), expected)
    assert num_parameters(mlp(10, 10, hidden=[10])) == 220
    assert isinstance(mlp(3, 2, hidden=[]).output, nn.Linear)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: mlp(3, 2, activation="rellu"), KeyError, "unknown activation 'rellu'; known are"),
        (lambda: mlp(3, 2, hidden=[0]), ValueError, r"at least 1, but got \[3, 0, 2\]"),
        (lambda: resnet(10, depth=21), ValueError, r"depth must be one of \[18, 34, 50\] or 6n\+2 .* got depth=21"),
        (lambda: resnet(10, depth=2), ValueError, "got depth=2"),
        (lambda: resnet(10, stem="cfar"), ValueError, "stem must be 'cifar' or 'imagenet', but is 'cfar'"),
        (lambda: wide_resnet(10, depth=20), ValueError, r"depth must be 6n\+4"),
    ],
)
def test_impossible_arguments_say_why(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()


def own(input_shape: list[int], num_outputs: int, hidden: int, **rest: Any) -> nn.Module:
    return nn.Linear(input_shape[0], num_outputs + hidden)


def sequence(in_channels: int, num_classes: int) -> nn.Module:
    return nn.Conv1d(in_channels, num_classes, 3)


def test_arguments_are_filled_in_from_the_data() -> None:
    assert arguments_for("mlp", (1, 8, 8), 10) == {"in_features": 64, "out_features": 10}
    assert arguments_for("resnet", (3, 32, 32), 10, {"depth": 8}) == {"in_channels": 3, "num_classes": 10, "depth": 8}
    assert arguments_for("vgg11", (1, 28, 20), 10)["image_size"] == 20
    assert arguments_for("resnet", (3, 32, 32), 10, {"num_classes": 5})["num_classes"] == 5
    assert arguments_for(f"{__name__}:sequence", (5, 80), 3) == {"in_channels": 5, "num_classes": 3}
    mine = arguments_for(f"{__name__}:own", (7,), 3, {"hidden": 2, "more": 1})
    assert mine == {"input_shape": [7], "num_outputs": 3, "hidden": 2, "more": 1}


@pytest.mark.parametrize(
    ("name", "shape", "given", "error", "said"),
    [
        ("resnett", (3, 8, 8), {}, ValueError, r"unknown network 'resnett' \(did you mean 'resnet'\?\); known are"),
        (
            "resnet",
            (30,),
            {},
            ValueError,
            r"takes images \(channels, height, width\), but the samples have shape \(30,\); use mlp",
        ),
        ("resnet", (3, 8, 8), {"dpth": 8}, ValueError, r"takes the arguments .*'depth'.* but got \['dpth'\]"),
        (f"{__name__}:own", (3,), {}, ValueError, r"needs the arguments \['hidden'\]"),
        ("no.such:factory", (3,), {}, ArchitectureError, "no.such must be importable"),
        (f"{__name__}:nothing", (3,), {}, ArchitectureError, "has no 'nothing'"),
    ],
)
def test_arguments_that_cannot_be_say_why(name: str, shape: Any, given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        arguments_for(name, shape, 10, given)


def test_a_reference_of_your_own_is_kept() -> None:
    assert network_reference("mine.networks:build") == "mine.networks:build"
    assert network_reference("vgg11") == "coppice.methods.networks.vgg:vgg11"
    with pytest.raises(ValueError, match="unknown network 'mine:'"):
        network_reference("mine:")


def test_the_seed_decides_on_the_weights_and_a_reset_draws_them_anew() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in resnet(10, depth=8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    module = resnet(10, depth=8)
    before = module.stem[0][0].weight.clone()
    module.reset_parameters()
    assert not torch.equal(before, module.stem[0][0].weight)


@pytest.mark.parametrize(
    ("name", "shape", "given"),
    [
        ("mlp", (1, 8, 8), {"batch_norm": True}),
        ("vgg11", (3, 32, 32), {"width": 0.125}),
        ("vgg16", (1, 8, 8), {"width": 0.125, "batch_norm": False}),
        ("resnet", (1, 8, 8), {"depth": 8, "width": 0.5}),
        ("resnet", (3, 64, 64), {"depth": 50, "stem": "imagenet", "width": 0.125}),
        ("wide_resnet", (3, 32, 32), {"depth": 16, "inner_width": 0.25, "inner_norm": False}),
    ],
)
def test_only_what_the_data_decides_is_not_permissible(name: str, shape: tuple[int, ...], given: dict[str, Any]) -> None:
    """Every channel inside can grow and shrink: nothing in the forward freezes one."""
    channels = [e for e in elements(build(name, shape, 10, **given), (torch.zeros(2, *shape),)) if e.level == "channel"]
    assert {e.reason for e in channels if not e.permissible} <= {"input of the network", "output of the network"}
    assert len([e for e in channels if e.permissible]) >= 2
