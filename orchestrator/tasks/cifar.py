"""CIFAR-10 in each form in which it is published: python batches, binary batches, and Parquet on dataset hubs."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.files import Layout, missing, need_folder
from coppice.orchestrator.tasks.images import ImageOptions, image_dataset
from coppice.orchestrator.tasks.parquet import find_parquet, parquet_splits

ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar.html"
NUM_PIXELS = 3 * 32 * 32
PYTHON = Layout(
    "cifar10",
    (".", "cifar-10-batches-py", "cifar10", "cifar10/cifar-10-batches-py"),
    {f"train {i}": (f"data_batch_{i}",) for i in range(1, 6)} | {"test": ("test_batch",)},
    ORIGIN,
)
BINARY = Layout(
    "cifar10",
    (".", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"),
    {f"train {i}": (f"data_batch_{i}.bin",) for i in range(1, 6)} | {"test": ("test_batch.bin",)},
    ORIGIN,
)
PARQUET_FOLDERS = (".", "cifar10", "plain_text", "cifar10/plain_text")
PARQUET = Layout("cifar10", PARQUET_FOLDERS, {"train": ("train*.parquet",), "test": ("test*.parquet",)}, ORIGIN)


class _Dtype:
    """Stands for a numpy dtype in a batch file; only unsigned bytes are let in."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"arrays of {name!r} are not expected in a batch")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like mean nothing for bytes."""


class _Array:
    """Stands for a numpy array in a batch file; `value` is the array."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, _, fortran, content = state
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


ALLOWED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _latin1,
}


class _BatchUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, numbers, strings and byte arrays, and nothing else: no name in the file is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the file."""
        stand_in = ALLOWED.get(f"{module}.{name}")
        if stand_in is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected in a batch")
        return stand_in


def read_python_batch(path: Path) -> Split:
    """One file of the python version, without importing or running anything that it names.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        data, labels = batch[b"data"].value, np.asarray(batch[b"labels"], np.int64)
        images = torch.from_numpy(data.reshape(len(labels), 3, 32, 32).copy())
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise ValueError(f"{path} must be a python batch of CIFAR-10, but cannot be read ({error}); get it again.") from error
    return Split(images, torch.from_numpy(labels))


def read_binary_batch(path: Path) -> Split:
    """One file of the binary version: records of one label and 3,072 pixels.

    Raises:
        ValueError: the file does not end with a whole record, or a label is above 9.
    """
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % (1 + NUM_PIXELS):
        raise ValueError(
            f"{path} must hold records of {1 + NUM_PIXELS} bytes, but has {len(content)} bytes; it is truncated; get it again."
        )
    records = torch.from_numpy(content.reshape(-1, 1 + NUM_PIXELS))
    labels = records[:, 0].long()
    if int(labels.max()) > 9:
        raise ValueError(f"{path} must hold labels of 0..9, but one is {int(labels.max())}; this is no batch of CIFAR-10.")
    return Split(records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), labels)


def cifar10(data_dir: Path | None, seed: int, val_fraction: float = 0.1, *, pad: int = 4, flip: bool = True) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 images of 3x32x32, 10 classes.

    Args:
        data_dir: folder with the files in any of the three forms, or the one above it.
        seed: decides which of the training images are for validation.
        val_fraction: how many.
        pad: zeros around training images before a random crop.
        flip: whether training images are mirrored half of the time.
    """
    folder = need_folder("cifar10", data_dir, ORIGIN)
    train, test = _read(folder)
    return image_dataset("cifar10", train, None, test, seed, ImageOptions(val_fraction, pad, flip, num_classes=10))


def _read(folder: Path) -> tuple[Split, Split]:
    for layout, read in ((PYTHON, read_python_batch), (BINARY, read_binary_batch)):
        paths = layout.find(folder)
        if paths is not None:
            batches = [read(paths[f"train {i}"]) for i in range(1, 6)]
            train = Split(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))
            return train, read(paths["test"])
    files = next((f for place in PARQUET_FOLDERS if (f := find_parquet(folder / place)).keys() >= {"train", "test"}), None)
    if files is None:
        raise FileNotFoundError(missing("cifar10", folder, [PYTHON, BINARY, PARQUET]))
    splits = parquet_splits({part: files[part] for part in ("train", "test")})
    return splits["train"], splits["test"]
