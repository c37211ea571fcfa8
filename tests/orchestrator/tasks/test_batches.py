"""Order and augmentation follow from seed and epoch; every sample is seen; nothing is changed in place."""

import dataclasses

import pytest
import torch

from coppice.orchestrator.tasks.augment import Augment
from coppice.orchestrator.tasks.batches import eval_batches, num_batches, statistics_batches, train_batches
from coppice.orchestrator.tasks.dataset import Dataset, Split


def numbered(num: int, augment: Augment | None = None) -> Dataset:
    """Images whose pixels and targets are the sample's own number."""

    def split(n: int) -> Split:
        return Split(torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 4), torch.arange(n))

    return Dataset(
        "numbered", split(num), split(9), None, "classification", 256, (1, 4, 4), augment, torch.tensor(1.0), torch.tensor(2.0)
    )


@pytest.mark.parametrize(
    ("num", "size", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (3, 8, [3]), (1, 8, [1]), (3, 1, [1, 1, 1])]
)
def test_batch_sizes_and_no_last_batch_of_one(num: int, size: int, sizes: list[int]) -> None:
    batches = list(train_batches(numbered(num), size, 0, 1))
    assert [len(t) for _, t in batches] == sizes
    assert num_batches(num, size) == len(sizes)


def test_every_sample_once_with_its_own_target_and_normalised() -> None:
    batches = list(train_batches(numbered(50), 8, 0, 1))
    assert sorted(torch.cat([t for _, t in batches]).tolist()) == list(range(50))
    for inputs, targets in batches:
        assert inputs.dtype == torch.float32
        assert torch.equal(inputs, ((targets - 1) / 2)[:, None, None, None].expand_as(inputs))


def test_seed_and_epoch_decide_and_the_global_generator_does_not() -> None:
    def run(seed: int, epoch: int) -> torch.Tensor:
        return torch.cat([x for x, _ in train_batches(numbered(64, Augment(1)), 16, seed, epoch)])

    torch.manual_seed(0)
    first = run(3, 1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(first, run(3, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, run(3, 2))
    assert not torch.equal(first, run(4, 1))


def test_augmentation_is_for_training_batches_only_and_can_be_left_out() -> None:
    data = numbered(64, Augment(2))
    changed = torch.cat([x for x, _ in train_batches(data, 16, 0, 1)])
    plain = torch.cat([x for x, _ in train_batches(data, 16, 0, 1, augment=False)])
    assert not torch.equal(changed, plain)
    for batches in (
        train_batches(data, 16, 0, 1, augment=False),
        statistics_batches(data, 16, 0, 1, 4),
        eval_batches(data, "val", 4),
    ):
        assert all((x.flatten(1).std(1) == 0).all() for x, _ in batches)


def test_stored_data_stays_as_it_is() -> None:
    data = numbered(20, Augment(1))
    floats = dataclasses.replace(data, train=Split(data.train.inputs.float(), data.train.targets))
    before = floats.train.inputs.clone()
    for inputs, _ in [
        *train_batches(floats, 8, 0, 1, augment=False),
        *statistics_batches(floats, 8, 0, 1, 2),
        *eval_batches(floats, "train", 8),
    ]:
        inputs.zero_()
    assert torch.equal(floats.train.inputs, before)


def test_without_mean_and_deviation_floats_are_not_shared_with_the_data_either() -> None:
    split = Split(torch.rand(6, 2), torch.zeros(6, 1))
    data = Dataset("plain", split, split, None, "regression", 1, (2,))
    before = split.inputs.clone()
    for inputs, _ in eval_batches(data, "val", 3):
        inputs.zero_()
    assert torch.equal(split.inputs, before)


def test_statistics_batches_are_full_and_repeat_only_when_all_were_used() -> None:
    batches = list(statistics_batches(numbered(10), 4, 0, 1, 5))
    seen = torch.cat([t for _, t in batches])
    assert [len(t) for _, t in batches] == [4] * 5
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    again = list(statistics_batches(numbered(10), 4, 0, 1, 5))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    assert [len(t) for _, t in statistics_batches(numbered(3), 8, 0, 1, 2)] == [3, 3]
    assert list(statistics_batches(numbered(3), 8, 0, 1, 0)) == []


def test_eval_batches_keep_the_order_and_leave_nothing_out() -> None:
    assert torch.cat([t for _, t in eval_batches(numbered(5), "val", 4)]).tolist() == list(range(9))
    with pytest.raises(KeyError, match=r"has the splits \['train', 'val'\], but 'test'"):
        next(eval_batches(numbered(5), "test", 4))


def test_a_batch_size_below_one_is_refused() -> None:
    for batches in (
        train_batches(numbered(5), 0, 0, 1),
        eval_batches(numbered(5), "val", 0),
        statistics_batches(numbered(5), 0, 0, 1, 1),
    ):
        with pytest.raises(ValueError, match="batch_size >= 1 must hold, but got batch_size=0"):
            next(batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can see")
def test_the_same_batches_on_a_gpu_and_they_stay_there() -> None:
    data = numbered(64, Augment(2))
    for (x, t), (x_gpu, t_gpu) in zip(train_batches(data, 16, 0, 1), train_batches(data.to("cuda"), 16, 0, 1), strict=True):
        assert x_gpu.is_cuda and t_gpu.is_cuda
        assert torch.equal(t, t_gpu.cpu())
        assert torch.allclose(x, x_gpu.cpu())
