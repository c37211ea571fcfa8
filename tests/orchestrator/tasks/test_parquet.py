"""Image Parquet: decoded right, once, and again when the source changes or the cache is damaged."""

import io
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from coppice.orchestrator.tasks import parquet
from coppice.orchestrator.tasks.augment import Augment
from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.dataset import Split


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("COPPICE_CACHE", str(folder))
    return folder


def samples(num: int, seed: int = 0, channels: int = 3) -> Split:
    draws = torch.Generator().manual_seed(seed)
    return Split(torch.randint(0, 256, (num, channels, 7, 9), dtype=torch.uint8, generator=draws), torch.arange(num) % 5)


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    values = image.permute(1, 2, 0).numpy()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, split: Split, names: tuple[str, str] = ("img", "label"), struct: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [png(i) for i in split.inputs]
    images = [{"bytes": e, "path": None} for e in encoded] if struct else encoded
    table = pyarrow.table({names[0]: images, names[1]: split.targets.tolist()})
    pyarrow.parquet.write_table(table, path, row_group_size=40, compression="none")
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("names", "struct"), [(("img", "label"), True), (("image", "fine_label"), False)])
def test_reads_what_was_written(tmp_path: Path, channels: int, names: tuple[str, str], struct: bool) -> None:
    train, test = samples(300, 0, channels), samples(30, 1, channels)
    write(tmp_path / "d" / "train-00000-of-00002.parquet", train.take(torch.arange(200)), names, struct)
    write(tmp_path / "d" / "train-00001-of-00002.parquet", train.take(torch.arange(200, 300)), names, struct)
    write(tmp_path / "d" / "test-00000-of-00001.parquet", test, names, struct)
    for _ in range(2):
        data = load_dataset("image_parquet", tmp_path / "d", val_fraction=0.1)
        assert data.test is not None
        assert torch.equal(data.test.inputs, test.inputs)
        assert torch.equal(data.test.targets, test.targets)
        assert (len(data.train), len(data.val), data.num_outputs, data.input_shape) == (270, 30, 5, (channels, 7, 9))
        known = {tuple(i.flatten().tolist()): int(t) for i, t in zip(train.inputs, train.targets, strict=True)}
        assert all(
            known[tuple(i.flatten().tolist())] == t for i, t in zip(data.train.inputs, data.train.targets.tolist(), strict=True)
        )


def test_a_validation_file_is_the_validation_split_and_no_test_file_means_none(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train.parquet", samples(20))
    write(tmp_path / "d" / "validation.parquet", samples(7, 1))
    data = load_dataset("image_parquet", tmp_path)
    assert (len(data.train), len(data.val), data.test) == (20, 7, None)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen: list[Path] = []
    original = parquet._decode_file

    def spy(path: Path, *arguments: object) -> Split:
        seen.append(path)
        return original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parquet, "_decode_file", spy)
    return seen


def test_decodes_once_and_again_when_the_file_changes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d" / "train.parquet", samples(20))
    seen = decoded(monkeypatch)
    first = load_dataset("image_parquet", tmp_path / "d")
    second = load_dataset("image_parquet", tmp_path / "d")
    assert seen == [path]
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert len(list(cache.iterdir())) == 1
    state = path.stat()
    other = samples(20)
    write(path, Split(other.inputs, other.targets.flip(0)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size, "the files must differ in nothing but their content"
    third = load_dataset("image_parquet", tmp_path / "d")
    assert len(seen) == 2, "another content must be noticed even when size and time of change are the same"
    assert not torch.equal(first.train.targets, third.train.targets)


def test_many_batches_of_rows_are_put_together_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(parquet, "ROWS_A_TASK", 7)
    train = samples(200)
    write(tmp_path / "d" / "train.parquet", samples(10))
    write(tmp_path / "d" / "validation.parquet", train)
    val = load_dataset("image_parquet", tmp_path / "d").val
    assert torch.equal(val.inputs, train.inputs)
    assert torch.equal(val.targets, train.targets)


def test_flip_or_crop_alone(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train.parquet", samples(10))
    flip = load_dataset("image_parquet", tmp_path / "d", pad=0).augment
    crop = load_dataset("image_parquet", tmp_path / "d", flip=False).augment
    assert (flip, crop) == (Augment(0, True), Augment(4, False))
    assert load_dataset("image_parquet", tmp_path / "d", pad=0, flip=False).augment is None


@pytest.mark.parametrize("how", ["truncated", "altered", "empty", "text"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    write(tmp_path / "d" / "train.parquet", samples(20))
    good = load_dataset("image_parquet", tmp_path / "d")
    (file,) = cache.iterdir()
    content = file.read_bytes()
    altered = content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]
    file.write_bytes({"truncated": content[:-100], "altered": altered, "empty": b"", "text": b"hello, this is no cache"}[how])
    seen = decoded(monkeypatch)
    again = load_dataset("image_parquet", tmp_path / "d")
    assert len(seen) == 1
    assert "is damaged" in caplog.text
    assert torch.equal(good.train.inputs, again.train.inputs)
    assert file.read_bytes() == content
    load_dataset("image_parquet", tmp_path / "d")
    assert len(seen) == 1
    assert list(cache.iterdir()) == [file], "no temporary file may stay"


def test_a_cache_that_cannot_be_written_is_only_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COPPICE_CACHE", str(tmp_path / "file" / "cache"))
    write(tmp_path / "d" / "train.parquet", samples(20))
    assert len(load_dataset("image_parquet", tmp_path / "d").train) == 18
    assert "cannot be kept" in caplog.text


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    def load(name: str, **arguments: object) -> None:
        load_dataset("image_parquet", tmp_path / name, **arguments)

    path = write(tmp_path / "damaged" / "train.parquet", samples(5))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train.parquet must be a whole Parquet file"):
        load("damaged")
    write(tmp_path / "columns" / "train.parquet", samples(5), ("picture", "label"))
    with pytest.raises(ValueError, match=r"must have a column img or image, but has \['picture', 'label'\]"):
        load("columns")
    with pytest.raises(ValueError, match=r"must have a column class, but has"):
        load("columns", image_column="picture", label_column="class")
    table = pyarrow.table({"img": [png(samples(1).inputs[0]), b"no picture"], "label": [0, 1]})
    (tmp_path / "picture").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "picture" / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet: row 1 must hold an image"):
        load("picture")
    (tmp_path / "sizes").mkdir()
    table = pyarrow.table({"img": [png(torch.zeros(3, 4, s, dtype=torch.uint8)) for s in (4, 4, 5)], "label": [0, 1, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "sizes" / "train.parquet")
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\) of the first one, but row 2 has \(3, 4, 5\)"):
        load("sizes")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must contain train\*.parquet"):
        load("nothing")
    with pytest.raises(ValueError, match=r"must contain one data set, but has \['columns',"):
        load_dataset("image_parquet", tmp_path)


def test_cifar10_as_parquet(tmp_path: Path) -> None:
    for split, num in (("train", 20), ("test", 6)):
        write(tmp_path / "cifar10" / f"{split}.parquet", samples(num))
    data = load_dataset("cifar10", tmp_path)
    assert data.test is not None
    assert (len(data.train), len(data.test), data.num_outputs, data.name) == (18, 6, 10, "cifar10")
