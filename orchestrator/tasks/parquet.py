"""Images in Parquet, as dataset hubs publish them: a column of encoded images and a column of labels."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image, UnidentifiedImageError

from coppice.orchestrator.tasks.cache import cached
from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.files import need_folder
from coppice.orchestrator.tasks.images import ImageOptions, image_dataset

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
ORIGIN = "the Parquet files of a dataset hub"
ROWS_AT_A_TIME = 4096
ROWS_A_TASK = 128


def find_parquet(folder: Path) -> dict[str, list[Path]]:
    """The files `<split>*.parquet` of each split, "train", "validation" and "test", that `folder` has; sorted."""
    files = {split: sorted(folder.glob(f"{split}*.parquet")) for split in ("train", "validation", "test")}
    return {split: paths for split, paths in files.items() if paths}


def parquet_splits(
    files: Mapping[str, Sequence[Path]], image_column: str | None = None, label_column: str | None = None
) -> dict[str, Split]:
    """The decoded images (N, C, H, W) uint8 and labels of each split; decoded once, then read from the cache."""
    return {
        split: cached(
            split, paths, f"{image_column} {label_column}", functools.partial(_decode, paths, image_column, label_column)
        )
        for split, paths in files.items()
    }


def image_parquet(
    data_dir: Path | None,
    seed: int,
    val_fraction: float = 0.1,
    *,
    pad: int = 4,
    flip: bool = True,
    num_classes: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Classification of images of one size in Parquet files.

    Args:
        data_dir: folder with train*.parquet and, if there are any, validation*.parquet and test*.parquet; or the one above it.
        seed: decides which of the training images are for validation where no file is.
        val_fraction: how many.
        pad: zeros around training images before a random crop.
        flip: whether training images are mirrored half of the time.
        num_classes: None takes one more than the largest label.
        image_column: None takes the first of `IMAGE_COLUMNS` that is there.
        label_column: None takes the first of `LABEL_COLUMNS` that is there.

    Raises:
        FileNotFoundError: no train*.parquet.
        ValueError: damaged files, missing columns, images that cannot be decoded or differ in size.
    """
    folder = need_folder("image_parquet", data_dir, ORIGIN)
    files = find_parquet(_folder_with_train(folder))
    splits = parquet_splits(files, image_column, label_column)
    options, name = ImageOptions(val_fraction, pad, flip, num_classes), folder.resolve().name
    return image_dataset(name, splits["train"], splits.get("validation"), splits.get("test"), seed, options)


def _folder_with_train(folder: Path) -> Path:
    if "train" in find_parquet(folder):
        return folder
    below = sorted(p for p in folder.iterdir() if p.is_dir() and "train" in find_parquet(p))
    if len(below) > 1:
        names = [p.name for p in below]
        raise ValueError(f"dataset image_parquet: {folder} must contain one data set, but has {names}; name one as data_dir.")
    if not below:
        raise FileNotFoundError(f"dataset image_parquet: {folder} must contain train*.parquet, but does not; get {ORIGIN}.")
    return below[0]


def _decode(paths: Iterable[Path], image_column: str | None, label_column: str | None) -> Split:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        splits = [_decode_file(path, image_column, label_column, pool) for path in paths]
    shapes = {tuple(s.inputs.shape[1:]) for s in splits}
    if len(shapes) > 1:
        raise ValueError(f"all images must have the same shape, but the files {[str(p) for p in paths]} have {sorted(shapes)}.")
    return Split(torch.cat([s.inputs for s in splits]), torch.cat([s.targets for s in splits]))


def _decode_file(path: Path, image_column: str | None, label_column: str | None, pool: ThreadPoolExecutor) -> Split:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [_column(path, names, image_column, IMAGE_COLUMNS), _column(path, names, label_column, LABEL_COLUMNS)]
            images: np.ndarray | None = None
            labels, done = np.empty(file.metadata.num_rows, np.int64), 0
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
                encoded = _encoded(batch.column(columns[0]))
                if images is None:
                    images = np.empty((len(labels), *_pixels(path, 0, encoded[0], None).shape), np.uint8)
                _fill(path, images, done, encoded, pool)
                labels[done : done + len(encoded)] = batch.column(columns[1]).to_numpy(zero_copy_only=False)
                done += len(encoded)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} must be a whole Parquet file, but is truncated or damaged ({error}); get it again.") from error
    if images is None:
        raise ValueError(f"{path} must hold images, but has no rows.")
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _column(path: Path, names: Sequence[str], chosen: str | None, usual: Sequence[str]) -> str:
    for name in (chosen,) if chosen is not None else usual:
        if name in names:
            return name
    raise ValueError(f"{path} must have a column {chosen or ' or '.join(usual)}, but has {list(names)}; name it in dataset_args.")


def _encoded(column: Any) -> list[bytes | None]:
    return (column.field("bytes") if pyarrow.types.is_struct(column.type) else column).to_pylist()


def _fill(path: Path, images: np.ndarray, start: int, encoded: Sequence[bytes | None], pool: ThreadPoolExecutor) -> None:
    def task(first: int) -> None:
        for i in range(first, min(first + ROWS_A_TASK, len(encoded))):
            images[start + i] = _pixels(path, start + i, encoded[i], images.shape[1:])

    list(pool.map(task, range(0, len(encoded), ROWS_A_TASK)))


def _pixels(path: Path, row: int, encoded: bytes | None, shape: tuple[int, ...] | None) -> np.ndarray:
    """One image as (C, H, W) uint8; grey where the first one of the file was."""
    try:
        image = Image.open(io.BytesIO(encoded or b""))
        grey = image.mode == "L" if shape is None else shape[0] == 1
        values = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: row {row} must hold an image, but it cannot be decoded ({error}).") from error
    pixels = values[None] if grey else values.transpose(2, 0, 1)
    if shape is not None and pixels.shape != shape:
        raise ValueError(f"{path}: all images must have the shape {shape} of the first one, but row {row} has {pixels.shape}.")
    return pixels
