"""A picture as a function: from the place of a pixel to its colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_sample_image

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.files import Layout
from coppice.orchestrator.tasks.splits import divide
from coppice.orchestrator.tasks.tables import TEST_SEED

BUNDLED = ("china", "flower")


def photo(
    data_dir: Path | None, seed: int, picture: str = "china", size: int | None = None, val_fraction: float = 0.1
) -> Dataset:
    """Regression of red, green and blue in [0, 1] on (x, y) in [-1, 1]; a tenth of the pixels, always the same, is for testing.

    Args:
        data_dir: folder with the picture, when it is a file of yours.
        seed: decides which pixels are for validation.
        picture: "china" or "flower", which come with scikit-learn, or the name of a file in `data_dir` or its folder photos.
        size: length in pixels that the longer side is reduced to; None keeps all pixels.
        val_fraction: of the pixels that are not for testing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no picture, or `size` is too small.
    """
    if size is not None and size < 8:
        raise ValueError(f"size >= 8 must hold, but got size={size}.")
    image = Image.fromarray(load_sample_image(f"{picture}.jpg")) if picture in BUNDLED else _open(data_dir, picture)
    if size is not None:
        image.thumbnail((size, size))
    colours = torch.from_numpy(np.asarray(image).copy()).float() / 255
    height, width, _ = colours.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    pixels = Split(torch.stack([x, y], dim=-1).reshape(-1, 2), colours.reshape(-1, 3))
    rest, test = divide(pixels, 0.1, TEST_SEED, "test")
    train, val = divide(rest, val_fraction, seed, "val")
    return Dataset("photo", train, val, test, "regression", 3, (2,))


def _open(data_dir: Path | None, picture: str) -> Image.Image:
    origin = f"your own pictures, or use one of {list(BUNDLED)}"
    path = Layout("photo", (".", "photos"), {"picture": (picture,)}, origin).need(data_dir)["picture"]
    try:
        return Image.open(path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} must be a picture, but cannot be decoded ({error}).") from error
