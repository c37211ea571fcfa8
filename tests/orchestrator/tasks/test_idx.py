"""Files in MNIST's format, whole and damaged."""

import gzip
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.idx import read_idx

DRAWS = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (60, 6, 5), dtype=torch.uint8, generator=DRAWS)
LABELS = (torch.arange(60) % 3).to(torch.uint8)


def content(values: Tensor) -> bytes:
    header = struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def write(folder: Path, mark: str = "-", compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, num in (("train", 60), ("t10k", 12)):
        for name, values in ((f"{part}-images{mark}idx3-ubyte", IMAGES[:num]), (f"{part}-labels{mark}idx1-ubyte", LABELS[:num])):
            data = content(values)
            (folder / (name + ".gz" * compressed)).write_bytes(gzip.compress(data) if compressed else data)
    return folder


@pytest.mark.parametrize(("mark", "compressed"), [("-", True), ("-", False), (".", False)])
def test_reads_what_was_written(tmp_path: Path, mark: str, compressed: bool) -> None:
    data = load_dataset("idx", write(tmp_path, mark, compressed), val_fraction=0.2)
    assert data.test is not None
    assert (len(data.train), len(data.val), data.input_shape, data.num_outputs) == (48, 12, (1, 6, 5), 3)
    assert torch.equal(data.test.inputs[:, 0], IMAGES[:12])
    assert torch.equal(data.test.targets, LABELS[:12].long())
    for inputs, target in zip(data.train.inputs, data.train.targets, strict=True):
        row = (inputs == IMAGES).flatten(1).all(1).nonzero()
        assert LABELS[int(row)] == target


def test_mnist_and_fashion_mnist_look_in_the_usual_folders(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw")
    write(tmp_path / "fashion-mnist")
    assert load_dataset("mnist", tmp_path).num_outputs == 10
    fashion = load_dataset("fashion_mnist", tmp_path)
    assert fashion.augment is not None and fashion.augment.flip


def test_missing_files_are_named_with_their_origin(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"t10k-labels-idx1-ubyte or .*t10k-labels-idx1-ubyte.gz.* get them from https://"
    ):
        load_dataset("mnist", tmp_path)


def damaged(data: bytes, how: str) -> tuple[str, bytes]:
    return {
        "truncated gzip": ("f.gz", gzip.compress(data)[:-20]),
        "not gzip": ("f.gz", data),
        "altered gzip": ("f.gz", (g := bytearray(gzip.compress(data)))[:40] + bytes([g[40] ^ 255]) + g[41:]),
        "invalid block": ("f.gz", gzip.compress(data)[:10] + b"\xff" + gzip.compress(data)[11:]),
        "labels instead of images": ("f", content(LABELS)),
        "truncated values": ("f", data[:-1]),
        "too many values": ("f", data + b"\0"),
        "truncated header": ("f", data[:9]),
        "empty": ("f", b""),
    }[how]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated gzip", "must be a whole gzip file"),
        ("not gzip", "must be a whole gzip file"),
        ("altered gzip", "must be a whole gzip file"),
        ("invalid block", "must be a whole gzip file"),
        ("labels instead of images", "must begin with the magic number 2051, but begins with 2049"),
        ("truncated values", r"must hold \(60, 6, 5\) values, but holds 1799"),
        ("too many values", r"must hold \(60, 6, 5\) values, but holds 1801"),
        ("truncated header", "truncated after 9 bytes"),
        ("empty", "truncated after 0 bytes"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, how: str, said: str) -> None:
    name, data = damaged(content(IMAGES), how)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{tmp_path / name} .*{said}|{said}") as raised:
        read_idx(tmp_path / name, 3)
    assert str(tmp_path / name) in str(raised.value)


def test_a_header_that_promises_more_than_memory_is_refused_by_its_length(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(struct.pack(">I3I", 0x0803, 2**31, 2**31, 4))
    with pytest.raises(ValueError, match=r"must hold .* values, but holds 0"):
        read_idx(tmp_path / "f", 3)
