"""The published data sets themselves, where COPPICE_DATA names a folder that has them (cifar10/, mnist/, tabular/)."""

import os
from pathlib import Path

import pytest
import torch

from coppice.orchestrator.tasks.catalog import load_dataset

FOLDER = os.environ.get("COPPICE_DATA")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="COPPICE_DATA names no folder with published data sets")


def folder(name: str) -> Path:
    path = Path(FOLDER or ".")
    if not (path / name).is_dir():
        pytest.skip(f"COPPICE_DATA has no folder {name}")
    return path


def test_mnist() -> None:
    data = load_dataset("mnist", folder("mnist"))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test), data.input_shape) == (54000, 6000, 10000, (1, 28, 28))
    counts = data.train.targets.bincount() + data.val.targets.bincount()
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.mean is not None and float(data.mean) / 255 == pytest.approx(0.1307, abs=1e-3)


@pytest.mark.slow
def test_cifar10() -> None:
    data = load_dataset("cifar10", folder("cifar10"))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test), data.input_shape) == (45000, 5000, 10000, (3, 32, 32))
    assert data.train.targets.bincount().tolist() == [4500] * 10
    assert data.test.targets.bincount().tolist() == [1000] * 10
    assert data.mean is not None and data.std is not None
    assert torch.allclose(data.mean.flatten() / 255, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-3)
    assert torch.allclose(data.std.flatten() / 255, torch.tensor([0.2470, 0.2435, 0.2616]), atol=1e-3)


def test_tables() -> None:
    path = folder("tabular")
    for file in sorted((path / "tabular").glob("*.npz")):
        data = load_dataset("tabular", path, table=file.stem)
        assert data.kind == "regression" and data.target_std > 0
