"""VGG networks (Simonyan and Zisserman 2015, table 1) with one linear layer after average pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coppice.methods.networks.initial import he_initialise, scaled

STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
"""Depth (with the original's three linear layers) -> widths of the convolutions of each stage."""


class VGG(nn.Module):
    """3x3 convolutions in stages, each stage but those of a single pixel followed by pooling; then a linear layer."""

    def __init__(
        self, depth: int, num_classes: int, *, in_channels: int, width: float, batch_norm: bool, image_size: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, size = in_channels, image_size
        for stage in STAGES[depth]:
            for channels in stage:
                after = scaled(channels, width)
                layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(after))
                layers.append(nn.ReLU())
                before = after
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions' weights anew."""
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def vgg11(num_classes: int, in_channels: int = 3, width: float = 1.0, batch_norm: bool = True, image_size: int = 32) -> VGG:
    """VGG with 8 convolutions.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
        width: factor on all widths.
        batch_norm: whether each convolution is normalised.
        image_size: the smaller side of the images; stages that arrive at a single pixel do not pool.
    """
    return VGG(
        11, num_classes, in_channels=in_channels, width=width, batch_norm=batch_norm, image_size=image_size
    )


def vgg13(num_classes: int, in_channels: int = 3, width: float = 1.0, batch_norm: bool = True, image_size: int = 32) -> VGG:
    """VGG with 10 convolutions; arguments as `vgg11`."""
    return VGG(
        13, num_classes, in_channels=in_channels, width=width, batch_norm=batch_norm, image_size=image_size
    )


def vgg16(num_classes: int, in_channels: int = 3, width: float = 1.0, batch_norm: bool = True, image_size: int = 32) -> VGG:
    """VGG with 13 convolutions; arguments as `vgg11`."""
    return VGG(
        16, num_classes, in_channels=in_channels, width=width, batch_norm=batch_norm, image_size=image_size
    )
