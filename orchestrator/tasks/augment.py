"""Random crops and mirror images of whole batches, on the device that holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augment:
    """Zero-pad, crop back to the size at a random place, mirror left-right half of the time.

    The random numbers are drawn apart from their use, so that those of a whole epoch can go to the device at once.

    Attributes:
        pad: rows and columns of zeros added on each side before cropping.
        flip: whether images are mirrored.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad >= 0 must hold, but got pad={self.pad}.")

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Random choices for `num` images: (num, 3) int64 rows of (top, left, mirrored), on the generator's device."""
        places = torch.randint(0, 2 * self.pad + 1, (num, 2), generator=generator, device=generator.device)
        mirrored = torch.randint(0, 2 if self.flip else 1, (num, 1), generator=generator, device=generator.device)
        return torch.cat([places, mirrored], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Changed copies of `images` (N, C, H, W) of any dtype by the rows of `choices` (N, 3) on the same device."""
        num, channels, height, width = images.shape
        top, left, mirrored = choices[:, :1], choices[:, 1:2], choices[:, 2:]
        rows = torch.arange(height, device=images.device) + top
        across = torch.arange(width, device=images.device)
        columns = torch.where(mirrored == 1, width - 1 - across, across) + left
        places = rows[:, :, None] * (width + 2 * self.pad) + columns[:, None, :]
        padded = functional.pad(images, (self.pad,) * 4).flatten(2)
        return padded.gather(2, places.view(num, 1, -1).expand(-1, channels, -1)).view(images.shape)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copies of `images` (N, C, H, W), with random choices from `generator`."""
        return self.apply(images, self.draw(len(images), generator).to(images.device))
