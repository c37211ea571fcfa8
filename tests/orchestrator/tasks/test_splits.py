"""Divisions are disjoint, whole, in proportion and decided by the seed."""

import pytest
import torch

from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.splits import divide, limit, limited


def classes(*counts: int) -> Split:
    targets = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    return Split(torch.arange(len(targets)).float()[:, None], targets)


def test_divide_is_disjoint_whole_and_in_proportion() -> None:
    split = classes(100, 60, 40)
    stays, apart = divide(split, 0.2, 0, "val")
    assert sorted([*stays.inputs[:, 0].tolist(), *apart.inputs[:, 0].tolist()]) == list(range(200))
    assert apart.targets.bincount().tolist() == [20, 12, 8]
    assert torch.equal(split.targets[apart.inputs[:, 0].long()], apart.targets)


def test_the_seed_and_the_label_decide() -> None:
    def apart(seed: int, label: str) -> list[float]:
        return divide(classes(50, 50), 0.2, seed, label)[1].inputs[:, 0].tolist()

    torch.manual_seed(0)
    first = apart(1, "val")
    torch.manual_seed(1)
    assert first == apart(1, "val")
    assert first != apart(2, "val")
    assert first != apart(1, "test")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.001])
def test_a_division_that_leaves_a_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="0 < val_fraction < 1 must hold and leave samples on both sides"):
        divide(classes(5, 5), fraction, 0, "val")


def test_limit_balances_classes_as_far_as_they_last() -> None:
    assert limit(classes(100, 100, 100), 30, 0).targets.bincount().tolist() == [10, 10, 10]
    assert limit(classes(100, 3, 100), 23, 0).targets.bincount().tolist() == [10, 3, 10]
    assert len(limit(classes(4, 4), 100, 0)) == 8
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        limit(classes(4, 4), 0, 0)


def test_limits_are_for_training_and_for_evaluation_apart() -> None:
    data = Dataset("d", classes(50, 50), classes(20, 20), classes(30, 30), "classification", 2, (1,))
    small = limited(data, 0, train=10, evaluation=6)
    assert (len(small.train), len(small.val), len(small.test or ())) == (10, 6, 6)
    same = limited(data, 0)
    assert same.train is data.train and same.val is data.val


def test_values_are_divided_and_limited_at_random() -> None:
    split = Split(torch.arange(100).float()[:, None], torch.rand(100, 1))
    stays, apart = divide(split, 0.25, 0, "val")
    assert (len(stays), len(apart)) == (75, 25)
    chosen = limit(split, 10, 0).inputs[:, 0]
    assert len(chosen) == 10
    assert chosen.tolist() != list(range(10))
