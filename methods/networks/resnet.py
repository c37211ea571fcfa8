"""Residual networks (He et al. 2016a): those for CIFAR, with depth 6n+2 in three stages, and those for ImageNet in four.

Where the shape changes, the skip path is a 1x1 convolution (their option B) in all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coppice.methods.networks.initial import he_initialise, scaled

IMAGENET_DEPTHS = {18: ("basic", (2, 2, 2, 2)), 34: ("basic", (3, 4, 6, 3)), 50: ("bottleneck", (3, 4, 6, 3))}
"""Depth -> kind of block and number of blocks in each stage."""


def _conv_norm(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a skip path."""

    expansion = 1

    def __init__(self, before: int, inner: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(before, inner, 3, stride)
        self.conv2 = _conv_norm(inner, after, 3)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else _conv_norm(before, after, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        return self.relu(self.conv2(self.relu(self.conv1(x))) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (which carries the stride) and a 1x1 convolution beside a skip path."""

    expansion = 4

    def __init__(self, before: int, inner: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(before, inner, 1)
        self.conv2 = _conv_norm(inner, inner, 3, stride)
        self.conv3 = _conv_norm(inner, after, 1)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else _conv_norm(before, after, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        y = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.relu(self.conv3(y) + self.shortcut(x))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _stem(kind: str, in_channels: int, channels: int) -> nn.Sequential:
    if kind == "imagenet":
        return nn.Sequential(_conv_norm(in_channels, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    return nn.Sequential(_conv_norm(in_channels, channels, 3), nn.ReLU())


class ResNet(nn.Module):
    """Stem, stages of residual blocks (each after the first halves the resolution and doubles the width), linear layer."""

    def __init__(
        self, num_classes: int, in_channels: int, *, block: str, num_blocks: tuple[int, ...], base: int, stem: str, width: float
    ) -> None:
        super().__init__()
        before = scaled(base, width)
        self.stem = _stem(stem, in_channels, before)
        stages: list[nn.Module] = []
        for stage, count in enumerate(num_blocks):
            inner = scaled(base * 2**stage, width)
            after = inner * BLOCKS[block].expansion
            blocks: list[nn.Module] = []
            for position in range(count):
                blocks.append(BLOCKS[block](before, inner, after, 2 if stage and not position else 1))
                before = after
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions' weights anew."""
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


def resnet(num_classes: int, in_channels: int = 3, depth: int = 20, stem: str = "cifar", width: float = 1.0) -> ResNet:
    """A residual network.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
        depth: 18, 34 (basic blocks) or 50 (bottlenecks) for the four-stage networks that start at 64 channels; any other
            6n+2 (8, 14, 20, 26, 32, 44, 56, 110, ...) for the three-stage ones that start at 16.
        stem: "cifar" (one 3x3 convolution) or "imagenet" (7x7 of stride 2, max pooling).
        width: factor on all widths.

    Raises:
        ValueError: no such depth or stem, or a width that is not positive.
    """
    if stem not in {"cifar", "imagenet"}:
        raise ValueError(f"stem must be 'cifar' or 'imagenet', but is {stem!r}.")
    if depth in IMAGENET_DEPTHS:
        block, num_blocks = IMAGENET_DEPTHS[depth]
        return ResNet(num_classes, in_channels, block=block, num_blocks=num_blocks, base=64, stem=stem, width=width)
    per_stage, rest = divmod(depth - 2, 6)
    if rest or per_stage < 1:
        raise ValueError(f"depth must be one of {sorted(IMAGENET_DEPTHS)} or 6n+2 with n >= 1, but got depth={depth}.")
    return ResNet(num_classes, in_channels, block="basic", num_blocks=(per_stage,) * 3, base=16, stem=stem, width=width)
