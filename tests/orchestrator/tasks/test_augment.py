"""Crops and mirror images of whole batches equal those made image by image."""

import pytest
import torch
from torch import Tensor

from coppice.orchestrator.tasks.augment import Augment


def one_by_one(images: Tensor, choices: Tensor, pad: int) -> Tensor:
    """The reference: each image alone, by slicing."""
    height, width = images.shape[2:]
    out = []
    for image, (top, left, mirrored) in zip(images, choices.tolist(), strict=True):
        padded = torch.zeros(image.shape[0], height + 2 * pad, width + 2 * pad, dtype=image.dtype)
        padded[:, pad : pad + height, pad : pad + width] = image
        crop = padded[:, top : top + height, left : left + width]
        out.append(crop.flip(2) if mirrored else crop)
    return torch.stack(out)


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_the_reference_image_by_image(pad: int, dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (64, 3, 10, 7), generator=draws).to(dtype)
    augment = Augment(pad, flip=True)
    choices = augment.draw(64, draws)
    changed = augment.apply(images, choices)
    assert changed.dtype == dtype
    assert torch.equal(changed, one_by_one(images, choices, pad))


def test_every_place_and_both_mirror_images_occur() -> None:
    choices = Augment(2, flip=True).draw(2000, torch.Generator().manual_seed(1))
    assert {tuple(c) for c in choices.tolist()} == {(t, x, m) for t in range(5) for x in range(5) for m in range(2)}
    assert Augment(2, flip=False).draw(500, torch.Generator().manual_seed(1))[:, 2].sum() == 0


def test_the_generator_alone_decides() -> None:
    images = torch.rand(20, 1, 8, 8)
    torch.manual_seed(0)
    first = Augment()(images, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert torch.equal(first, Augment()(images, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, Augment()(images, torch.Generator().manual_seed(6)))


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(ValueError, match="pad >= 0 must hold, but got pad=-1"):
        Augment(-1)
