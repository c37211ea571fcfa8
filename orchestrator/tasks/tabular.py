"""Regression tables in .npz files: X (N, d), y (N,) or (N, k) and, where a split is prescribed, test_index (splits, n_test)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.files import Layout
from coppice.orchestrator.tasks.tables import VAL_FRACTION, table_dataset

ORIGIN = "the UCI repository, saved by numpy.savez(file, X=..., y=...)"


def tabular(data_dir: Path | None, seed: int, table: str, split: int = 0, val_fraction: float = VAL_FRACTION) -> Dataset:
    """A regression table.

    Args:
        data_dir: folder with `<table>.npz`, or the one above it.
        seed: decides which samples are for validation.
        table: the file's name without ending.
        split: which row of `test_index` is the test set; without `test_index` there is one split, a fifth of the samples.
        val_fraction: of what is not test.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, missing or ill-shaped arrays, or no such split.
    """
    layout = Layout("tabular", (".", "tabular"), {"table": (f"{table}.npz",)}, ORIGIN)
    path = layout.need(data_dir)["table"]
    samples, tests = _read(path)
    num_splits = 1 if tests is None else len(tests)
    if not 0 <= split < num_splits:
        raise ValueError(f"0 <= split < {num_splits} must hold for {path}, but got split={split}.")
    if tests is None:
        return table_dataset(table, samples, None, seed, val_fraction)
    apart = torch.zeros(len(samples), dtype=torch.bool)
    apart[torch.as_tensor(tests[split]).long()] = True
    rest, test = samples.take((~apart).nonzero()[:, 0]), samples.take(apart.nonzero()[:, 0])
    return table_dataset(table, rest, test, seed, val_fraction)


def _read(path: Path) -> tuple[Split, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("X", "y", "test_index") if name in file}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} must be an .npz file of plain arrays, but cannot be read ({error}).") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    if not {"X", "y"} <= set(arrays) or arrays["X"].ndim != 2 or arrays["y"].ndim not in (1, 2):
        raise ValueError(f"{path} must have the arrays X (N, d) and y (N,) or (N, k), but has {shapes}.")
    tests = arrays.get("test_index")
    if tests is not None and (tests.ndim != 2 or tests.min() < 0 or tests.max() >= len(arrays["X"])):
        raise ValueError(f"{path}: test_index must be (splits, n_test) row numbers of X, but has the shape {tests.shape}.")
    targets = torch.as_tensor(arrays["y"].reshape(len(arrays["y"]), -1)).double()
    return Split(torch.as_tensor(arrays["X"]).double(), targets), tests
