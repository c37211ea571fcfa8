"""CIFAR-10 in its three forms, and pickles that want more than to be read."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.cifar import read_binary_batch, read_python_batch
from coppice.orchestrator.tasks.dataset import Split

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def batch(number: int, num: int = 20) -> Split:
    draws = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8, generator=draws)
    return Split(images, torch.randint(0, 10, (num,), generator=draws))


def binary(split: Split) -> bytes:
    return torch.cat([split.targets.to(torch.uint8)[:, None], split.inputs.flatten(1)], dim=1).numpy().tobytes()


def python3(split: Split) -> bytes:
    return pickle.dumps(
        {b"data": split.inputs.flatten(1).numpy(), b"labels": split.targets.tolist(), b"batch_label": b"x"}, protocol=2
    )


def python2(split: Split) -> bytes:
    """The opcodes that Python 2 wrote: plain strings for keys and pixels, the array rebuilt by numpy's old module."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = split.inputs.flatten(1).numpy()
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + number(0)
        + number(1)
        + b"tR("
        + number(3)
        + text(b"|")
        + b"NNN"
        + number(-1) * 2
        + number(0)
        + b"tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR("
    array += (
        number(1)
        + b"("
        + number(pixels.shape[0])
        + number(pixels.shape[1])
        + b"t"
        + dtype
        + b"I00\n"
        + text(pixels.tobytes())
        + b"tb"
    )
    labels = b"](" + b"".join(number(int(t)) for t in split.targets) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


@pytest.mark.parametrize("form", ["python2", "python3", "binary"])
@pytest.mark.parametrize("folder", [".", "cifar10"])
def test_reads_what_was_written(tmp_path: Path, form: str, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        (place / (name + ".bin" * (form == "binary"))).write_bytes(globals()[form](batch(number)))
    data = load_dataset("cifar10", tmp_path, val_fraction=0.1)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 20)
    assert (data.num_outputs, data.input_shape) == (10, (3, 32, 32))
    assert torch.equal(data.test.inputs, batch(5).inputs)
    assert torch.equal(data.test.targets, batch(5).targets)
    assert data.augment is not None and (data.augment.pad, data.augment.flip) == (4, True)
    every = {
        tuple(i.flatten()[:8].tolist()): int(t) for n in range(5) for i, t in zip(batch(n).inputs, batch(n).targets, strict=True)
    }
    for split in (data.train, data.val):
        assert all(every[tuple(i.flatten()[:8].tolist())] == t for i, t in zip(split.inputs, split.targets.tolist(), strict=True))


class Evil:
    """Would make a folder when unpickled in the usual way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


def test_a_pickle_never_runs_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "evil"))
    (tmp_path / "b").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(ValueError, match=r"b must be a python batch.*(posix|os|nt).mkdir is not expected"):
        read_python_batch(tmp_path / "b")
    assert not (tmp_path / "evil").exists()
    pickle.loads((tmp_path / "b").read_bytes())
    assert (tmp_path / "evil").exists(), "the file must be one that does harm in the usual way"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python2(batch(0))[:-100],
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": 3, b"labels": [1]}, protocol=2),
        pickle.dumps({b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.int8), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.array([{"an": "object"}]), b"labels": [1]}, protocol=2),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(ValueError, match="b must be a python batch of CIFAR-10, but cannot be read"):
        read_python_batch(tmp_path / "b")


def test_damaged_binary_batches_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(binary(batch(0))[:-1])
    with pytest.raises(ValueError, match="b must hold records of 3073 bytes, but has 61459 bytes"):
        read_binary_batch(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"\x0b" + binary(batch(0))[1:])
    with pytest.raises(ValueError, match=r"labels of 0..9, but one is 11"):
        read_binary_batch(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ValueError, match="but has 0 bytes"):
        read_binary_batch(tmp_path / "b")


def test_missing_files_are_named_for_each_form(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load_dataset("cifar10", tmp_path)
    for name in ("data_batch_3", "test_batch.bin", "train*.parquet", "https://www.cs.toronto.edu"):
        assert name in str(raised.value)
