"""Networks that every structural test runs over: `ZOO[name] = (factory, example inputs)`.

Each factory is a function of this module with JSON-able arguments, so that `tests.support.zoo:<name>` imports it.
Factories draw from the global generator: seed it first where values matter.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests.support.zoo_attention import TiedLM, TorchAttention, ViT
from tests.support.zoo_conv import VGG, C2f, DenseNet, DepthwiseSE, Flat, GroupShuffle, ResNet
from tests.support.zoo_other import DataDependent, LayerScale, Recurrent, ShapeLoop, Shared

Inputs = tuple[Tensor, ...]


def vgg11bn(width: float = 0.125, num_classes: int = 10) -> nn.Module:
    return VGG([int(w * width) for w in (64, 128, 256, 256, 512, 512, 512, 512)], num_classes)


def flatnet(channels: int = 8) -> nn.Module:
    return Flat(channels)


def resnet(blocks: Sequence[int] = (2, 1, 1), widths: Sequence[int] = (8, 16, 32), num_classes: int = 10) -> nn.Module:
    return ResNet(blocks, widths, num_classes)


def densenet(growth: int = 6, depth: int = 3) -> nn.Module:
    return DenseNet(growth, depth)


def dwsep_se(channels: int = 16, expansion: int = 4) -> nn.Module:
    return DepthwiseSE(channels, expansion)


def group_shuffle(channels: int = 16, groups: int = 4) -> nn.Module:
    return GroupShuffle(channels, groups)


def c2f(hidden: int = 8, depth: int = 2) -> nn.Module:
    return C2f(hidden, depth)


def torch_mha(width: int = 32, num_heads: int = 4, hidden: int = 64) -> nn.Module:
    return TorchAttention(width, num_heads, hidden)


def vit_hand(width: int = 32, num_heads: int = 4, depth: int = 2) -> nn.Module:
    return ViT(width, num_heads, depth, True, None)


def vit_sep(width: int = 32, num_heads: int = 4, depth: int = 2) -> nn.Module:
    return ViT(width, num_heads, depth, False, None)


def vit_gqa(width: int = 32, num_heads: int = 4, num_kv_heads: int = 2, depth: int = 2) -> nn.Module:
    return ViT(width, num_heads, depth, False, num_kv_heads)


def tied_lm(vocabulary: int = 50, width: int = 32, num_heads: int = 4) -> nn.Module:
    return TiedLM(vocabulary, width, num_heads)


def layerscale(channels: int = 16) -> nn.Module:
    return LayerScale(channels)


def datadep() -> nn.Module:
    return DataDependent()


def shapeloop() -> nn.Module:
    return ShapeLoop()


def lstm(hidden: int = 16) -> nn.Module:
    return Recurrent(hidden)


def shared(channels: int = 8) -> nn.Module:
    return Shared(channels)


def image() -> Inputs:
    """Two RGB images of 32 x 32."""
    return (torch.randn(2, 3, 32, 32),)


def sequence() -> Inputs:
    """Two sequences of five vectors of 12."""
    return (torch.randn(2, 5, 12),)


def tokens() -> Inputs:
    """Two sequences of seven tokens out of 50."""
    return (torch.randint(0, 50, (2, 7)),)


ZOO: dict[str, tuple[Callable[..., nn.Module], Callable[[], Inputs]]] = {
    "vgg11bn": (vgg11bn, image),
    "flatnet": (flatnet, image),
    "resnet": (resnet, image),
    "densenet": (densenet, image),
    "dwsep_se": (dwsep_se, image),
    "group_shuffle": (group_shuffle, image),
    "c2f": (c2f, image),
    "torch_mha": (torch_mha, sequence),
    "vit_hand": (vit_hand, image),
    "vit_sep": (vit_sep, image),
    "vit_gqa": (vit_gqa, image),
    "tied_lm": (tied_lm, tokens),
    "layerscale": (layerscale, image),
    "datadep": (datadep, sequence),
    "shapeloop": (shapeloop, sequence),
    "lstm": (lstm, sequence),
    "shared": (shared, image),
}
