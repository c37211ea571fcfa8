"""Regression tables and pictures of your own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coppice.orchestrator.tasks.catalog import load_dataset

DRAWS = np.random.default_rng(0)
X, Y = DRAWS.normal(5, 3, (50, 4)), DRAWS.normal(100, 7, 50)


def save(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mine.npz", **arrays)
    return folder


def test_the_prescribed_split_is_used(tmp_path: Path) -> None:
    tests = np.stack([np.arange(5), np.arange(10, 15)]).astype(np.int32)
    save(tmp_path / "tabular", X=X, y=Y, test_index=tests)
    data = load_dataset("tabular", tmp_path, table="mine", split=1)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test), data.input_shape, data.num_outputs) == (36, 9, 5, (4,), 1)
    difference = data.test.targets[1:, 0] - data.test.targets[0, 0]
    assert np.allclose(difference.numpy() * data.target_std, Y[11:15] - Y[10], atol=1e-4)


def test_without_a_prescribed_split_the_test_samples_are_always_the_same(tmp_path: Path) -> None:
    save(tmp_path, X=X, y=np.stack([Y, -Y], axis=1))
    first, second = (load_dataset("tabular", tmp_path, seed=s, table="mine") for s in (0, 1))
    assert first.test is not None and second.test is not None
    assert (len(first.test), first.num_outputs) == (10, 2)
    order = [t.targets[:, 0].argsort().tolist() for t in (first.test, second.test)]
    assert order[0] == order[1]


def test_a_column_that_does_not_vary_does_no_harm(tmp_path: Path) -> None:
    save(tmp_path, X=np.concatenate([X, np.ones((50, 1))], axis=1), y=Y)
    data = load_dataset("tabular", tmp_path, table="mine")
    assert torch.equal(data.train.inputs[:, 4], torch.zeros(len(data.train)))


@pytest.mark.parametrize(
    ("arrays", "arguments", "said"),
    [
        ({"X": X}, {}, r"must have the arrays X \(N, d\) and y"),
        ({"X": X[0], "y": Y}, {}, r"must have the arrays X \(N, d\) and y"),
        ({"X": X, "y": Y[:3]}, {}, "got 50 inputs, 3 targets"),
        ({"X": X, "y": Y, "test_index": np.array([[50]])}, {}, "test_index must be"),
        ({"X": X, "y": Y, "test_index": np.array([[1]])}, {"split": 1}, r"0 <= split < 1 must hold .* got split=1"),
        ({"X": X, "y": np.array([{"an": "object"}] * 50)}, {}, "plain arrays, but cannot be read"),
    ],
)
def test_ill_shaped_tables_are_refused(tmp_path: Path, arrays: Any, arguments: Any, said: str) -> None:
    save(tmp_path, **arrays)
    with pytest.raises(ValueError, match=said):
        load_dataset("tabular", tmp_path, table="mine", **arguments)


def test_a_damaged_or_missing_table_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, X=X, y=Y) / "mine.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"mine.npz must be an .npz file"):
        load_dataset("tabular", tmp_path, table="mine")
    with pytest.raises(FileNotFoundError, match=r"must contain all of yours.npz in one of \['.', 'tabular'\]"):
        load_dataset("tabular", tmp_path, table="yours")


def test_a_picture_of_your_own(tmp_path: Path) -> None:
    values = DRAWS.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "mine.png")
    data = load_dataset("photo", tmp_path, picture="mine.png")
    assert data.test is not None
    for split in (data.train, data.val, data.test):
        column = ((split.inputs[:, 0] + 1) / 2 * 9).round().long()
        row = ((split.inputs[:, 1] + 1) / 2 * 11).round().long()
        assert torch.allclose(split.targets, torch.from_numpy(values).float()[row, column] / 255)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png must be a picture"):
        load_dataset("photo", tmp_path, picture="text.png")
