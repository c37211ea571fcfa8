"""Wide residual networks (Zagoruyko and Komodakis 2016) with pre-activation blocks (He et al. 2016b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coppice.methods.networks.initial import he_initialise, scaled


class PreActivationBlock(nn.Module):
    """Normalise, rectify, convolve, twice, beside a skip path; where the shape changes, the skip starts after the first ReLU."""

    def __init__(self, before: int, inner: int, after: int, stride: int, inner_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, inner, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner) if inner_norm else nn.Identity()
        self.conv2 = nn.Conv2d(inner, after, 3, padding=1, bias=False)
        same = stride == 1 and before == after
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        y = self.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        return skip + self.conv2(self.relu(self.norm2(self.conv1(y))))


class WideResNet(nn.Module):
    """3x3 convolution, three stages of pre-activation blocks, normalisation, linear layer."""

    def __init__(
        self, num_classes: int, in_channels: int, *, blocks_per_stage: int, width: float, inner_width: float, inner_norm: bool
    ) -> None:
        super().__init__()
        before = 16
        self.stem = nn.Conv2d(in_channels, before, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        for stage in range(3):
            after = scaled(16 * 2**stage, width)
            inner = scaled(after, inner_width)
            blocks: list[nn.Module] = []
            for position in range(blocks_per_stage):
                blocks.append(PreActivationBlock(before, inner, after, 2 if stage and not position else 1, inner_norm))
                before = after
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(before)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions' weights anew."""
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes)."""
        y = self.relu(self.norm(self.stages(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(y), 1))


def wide_resnet(
    num_classes: int,
    in_channels: int = 3,
    *,
    depth: int = 28,
    width: float = 1.0,
    inner_width: float = 1.0,
    inner_norm: bool = True,
) -> WideResNet:
    """A wide residual network, WRN-depth-width.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
        depth: 6n+4 with n blocks in each of the three stages.
        width: factor on the 16, 32 and 64 channels of the stages.
        inner_width: factor, on top, on the channels between the two convolutions of a block: the seed networks of
            Evci et al. 2022 (GradMax) have 0.25 there.
        inner_norm: whether there is normalisation between the two convolutions of a block.

    Raises:
        ValueError: no such depth, or a width that is not positive.
    """
    blocks_per_stage, rest = divmod(depth - 4, 6)
    if rest or blocks_per_stage < 1:
        raise ValueError(f"depth must be 6n+4 with n >= 1 (10, 16, 22, 28, 40, ...), but got depth={depth}.")
    return WideResNet(
        num_classes,
        in_channels,
        blocks_per_stage=blocks_per_stage,
        width=width,
        inner_width=inner_width,
        inner_norm=inner_norm,
    )
