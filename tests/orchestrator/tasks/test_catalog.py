"""Every named data set that needs no files loads, and is split the same way each time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets as bundled

from coppice.orchestrator.tasks.catalog import DATASETS, load_dataset
from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.synthetic import bessel_sum
from coppice.references import resolve

WITHOUT_FILES = {
    "digits": (1797, (1, 8, 8), 10),
    "wine": (178, (13,), 3),
    "breast_cancer": (569, (30,), 2),
    "diabetes": (442, (10,), 1),
    "photo": (640 * 427, (2,), 3),
    "bessel": (1024 + 256 + 512, (1,), 1),
    "teacher": (3000, (10,), 10),
    "spirals": (3000, (2,), 2),
}


def mine(data_dir: Path | None, seed: int, num: int = 4) -> Dataset:
    split = Split(torch.full((num, 2), float(seed)), torch.arange(num) % 2)
    return Dataset(f"mine in {data_dir}", split, split, None, "classification", 2, (2,))


def open_ended(**arguments: Any) -> Dataset:
    return mine(arguments["data_dir"], arguments["seed"], arguments["anything"])


def no_dataset(data_dir: Path | None, seed: int) -> str:
    return "data"


def test_each_name_stands_for_something_that_imports() -> None:
    assert all(callable(resolve("dataset", name, DATASETS)) for name in DATASETS)


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_data_sets_without_files(name: str) -> None:
    num, shape, num_outputs = WITHOUT_FILES[name]
    data = load_dataset(name)
    assert data.test is not None
    assert len(data.train) + len(data.val) + len(data.test) == num
    assert (data.input_shape, data.num_outputs) == (shape, num_outputs)
    if data.kind == "classification":
        assert all(len(data.split(s).targets.unique()) == num_outputs for s in ("train", "val", "test"))
    again = load_dataset(name)
    for split in ("train", "val", "test"):
        assert torch.equal(data.split(split).inputs, again.split(split).inputs)
        assert torch.equal(data.split(split).targets, again.split(split).targets)


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "diabetes"])
def test_the_seed_changes_validation_but_never_the_test_samples(name: str) -> None:
    first, second = load_dataset(name, seed=0), load_dataset(name, seed=1)
    assert first.test is not None and second.test is not None
    if name == "digits":
        assert torch.equal(first.test.inputs, second.test.inputs)
    assert len(first.test) == len(second.test)
    scale = first.target_std, second.target_std
    assert torch.allclose(
        (first.test.targets * scale[0]).float().diff(dim=0), (second.test.targets * scale[1]).float().diff(dim=0), atol=1e-3
    )
    assert not torch.equal(first.val.inputs, second.val.inputs)


def test_no_sample_is_in_two_splits() -> None:
    """Digits hold few duplicates, so count: together the splits are the published data."""
    data = load_dataset("digits")
    parts = torch.cat([data.split(s).inputs for s in ("train", "val", "test")]).flatten(1)
    published = torch.from_numpy(bundled.load_digits().data).to(torch.uint8)
    assert sorted(map(tuple, parts.tolist())) == sorted(map(tuple, published.tolist()))


def test_digits_stay_uint8_and_are_normalised_by_their_training_samples() -> None:
    data = load_dataset("digits")
    assert data.train.inputs.dtype == torch.uint8
    normal = data.normalise(data.train.inputs)
    assert abs(float(normal.mean())) < 1e-4
    assert abs(float(normal.std()) - 1) < 1e-3


def test_tables_are_standardised_by_their_training_samples() -> None:
    data = load_dataset("diabetes")
    assert data.train.inputs.mean(0).abs().max() < 1e-5
    assert (data.train.inputs.std(0, correction=0) - 1).abs().max() < 1e-4
    assert abs(float(data.train.targets.std(correction=0)) - 1) < 1e-4
    assert data.val.inputs.mean(0).abs().max() > 1e-3
    published = bundled.load_diabetes().target
    restored = torch.cat([data.split(s).targets for s in ("train", "val", "test")]).double() * data.target_std
    assert float(restored.max() - restored.min()) == pytest.approx(np.ptp(published), rel=1e-5)


def test_limits_keep_classes_balanced() -> None:
    data = load_dataset("digits", limit_train=100, limit_eval=50)
    assert data.train.targets.bincount().tolist() == [10] * 10
    assert data.val.targets.bincount().tolist() == [5] * 10
    assert data.test is not None and len(data.test) == 50


def test_bessel_sum_is_right() -> None:
    special = pytest.importorskip("scipy.special")
    x = torch.cat([torch.linspace(-7, 7, 1001), torch.tensor([0.0, 1e-4, 0.0099, 0.0101])]).double()
    expected = sum(special.jv(order, x.numpy()) for order in range(3))
    assert np.abs(bessel_sum(x).numpy() - expected).max() < 2e-6


def test_noise_is_on_training_targets_only() -> None:
    clean, noisy = load_dataset("bessel"), load_dataset("bessel", noise=0.5)
    assert float((clean.train.targets - noisy.train.targets).std()) == pytest.approx(0.5, rel=0.1)
    assert torch.equal(clean.val.targets, noisy.val.targets)


def test_spirals_lie_on_their_arms() -> None:
    data = load_dataset("spirals", arms=5, noise=0.0, num_samples=500)
    assert data.train.targets.bincount().tolist() == [100] * 5
    radius = data.train.inputs.norm(dim=1)
    angle = torch.atan2(data.train.inputs[:, 1], data.train.inputs[:, 0])
    arm = ((angle / (2 * torch.pi) - 1.5 * radius) * 5).round() % 5
    assert torch.equal(arm.long(), data.train.targets)


def test_photo_is_the_picture() -> None:
    data = load_dataset("photo", picture="flower", size=64)
    assert data.test is not None
    assert len(data.train) + len(data.val) + len(data.test) == 64 * 43
    corner = (data.train.inputs == -1).all(1).nonzero()
    colours = torch.cat([data.split(s).targets for s in ("train", "val", "test")])
    assert 0 <= float(colours.min()) < 0.1 < 0.9 < float(colours.max()) <= 1
    assert len(corner) <= 1


def test_your_own_data_set() -> None:
    reference = f"{__name__}:mine"
    data = load_dataset(reference, "/somewhere", seed=3, num=6)
    assert (data.name, len(data.train), float(data.train.inputs[0, 0])) == ("mine in /somewhere", 6, 3.0)
    assert len(load_dataset(f"{__name__}:open_ended", anything=8, limit_train=2).train) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "error", "said"),
    [
        ("digit", {}, ValueError, r"unknown dataset 'digit' \(did you mean 'digits'\?\); known are \['bessel',"),
        ("no.such.module:thing", {}, ValueError, "no.such.module must be importable"),
        (f"{__name__}:nothing", {}, ValueError, "has no 'nothing'; it has"),
        (f"{__name__}:no_dataset", {}, TypeError, "must return a Dataset, but returned a str"),
        ("digits", {"pads": 1}, ValueError, r"dataset digits takes the arguments \['val_fraction', 'pad',.* but got \['pads'\]"),
        ("tabular", {}, ValueError, r"dataset tabular needs the arguments \['table'\]"),
        ("digits", {"val_fraction": 1.5}, ValueError, "0 < val_fraction < 1 must hold"),
        ("spirals", {"arms": 1}, ValueError, "arms >= 2 must hold, but got arms=1"),
        ("photo", {"size": 2}, ValueError, "size >= 8 must hold, but got size=2"),
        ("photo", {"picture": "mine.png"}, FileNotFoundError, "dataset photo needs a data_dir"),
        ("cifar10", {}, FileNotFoundError, "dataset cifar10 needs a data_dir .* but none was given; get them from https"),
        ("mnist", {"data_dir": "/no/such"}, FileNotFoundError, "data_dir /no/such must be a folder"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        load_dataset(name, **arguments)
