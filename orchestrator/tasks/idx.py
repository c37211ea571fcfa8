"""MNIST and what is published in its file format, idx: a big-endian header, then the values, often gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.files import Layout
from coppice.orchestrator.tasks.images import ImageOptions, image_dataset

UINT8 = 0x08
STEMS = {
    "train images": "train-images{}idx3-ubyte",
    "train labels": "train-labels{}idx1-ubyte",
    "test images": "t10k-images{}idx3-ubyte",
    "test labels": "t10k-labels{}idx1-ubyte",
}
FILES = {role: [stem.format(mark) + ending for mark in "-." for ending in ("", ".gz")] for role, stem in STEMS.items()}
MNIST_ORIGIN = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_ORIGIN = "https://github.com/zalandoresearch/fashion-mnist"


def read_idx(path: Path, num_dimensions: int) -> Tensor:
    """The uint8 values of an idx file, gzipped when its name ends in .gz.

    Raises:
        ValueError: damaged gzip, a wrong magic number, or fewer or more values than the header says.
    """
    content = _content(path)
    magic = 0x100 * UINT8 + num_dimensions
    if len(content) < 4 + 4 * num_dimensions:
        raise ValueError(f"{path} must be an idx file, but is truncated after {len(content)} bytes; get it again.")
    (first,) = struct.unpack_from(">I", content)
    if first != magic:
        raise ValueError(f"{path} must begin with the magic number {magic}, but begins with {first}; it is another file.")
    shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    start = 4 + 4 * num_dimensions
    if len(content) - start != np.prod(shape, dtype=object):
        raise ValueError(
            f"{path} must hold {shape} values, but holds {len(content) - start}; it is truncated or damaged; get it again."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file, but is truncated or damaged ({error}); get it again.") from error


def mnist(data_dir: Path | None, seed: int, val_fraction: float = 0.1, pad: int = 0) -> Dataset:
    """Handwritten digits: 60,000 and 10,000 images of 1x28x28, 10 classes; arguments as `idx`."""
    layout = Layout("mnist", (".", "mnist", "MNIST", "MNIST/raw"), FILES, MNIST_ORIGIN)
    return _dataset(layout, data_dir, seed, ImageOptions(val_fraction, pad, flip=False, num_classes=10))


def fashion_mnist(data_dir: Path | None, seed: int, val_fraction: float = 0.1, *, pad: int = 2, flip: bool = True) -> Dataset:
    """Pieces of clothing: 60,000 and 10,000 images of 1x28x28, 10 classes; arguments as `idx`."""
    folders = (".", "fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    layout = Layout("fashion_mnist", folders, FILES, FASHION_ORIGIN)
    return _dataset(layout, data_dir, seed, ImageOptions(val_fraction, pad, flip, num_classes=10))


def idx(
    data_dir: Path | None,
    seed: int,
    val_fraction: float = 0.1,
    *,
    pad: int = 0,
    flip: bool = False,
    num_classes: int | None = None,
) -> Dataset:
    """Any folder with the four files in MNIST's format.

    Args:
        data_dir: the folder.
        seed: decides which of the training images are for validation.
        val_fraction: how many.
        pad: zeros around training images before a random crop.
        flip: whether training images are mirrored half of the time.
        num_classes: None takes one more than the largest label.
    """
    layout = Layout("idx", (".",), FILES, MNIST_ORIGIN)
    return _dataset(layout, data_dir, seed, ImageOptions(val_fraction, pad, flip, num_classes))


def _dataset(layout: Layout, data_dir: Path | None, seed: int, options: ImageOptions) -> Dataset:
    paths = layout.need(data_dir)
    train, test = (
        Split(read_idx(paths[f"{part} images"], 3)[:, None], read_idx(paths[f"{part} labels"], 1).long())
        for part in ("train", "test")
    )
    return image_dataset(layout.dataset, train, None, test, seed, options)
