"""A data set says what is wrong with it before anything is trained."""

import pytest
import torch

from coppice.orchestrator.tasks.dataset import Dataset, Split

GOOD = Split(torch.rand(4, 2), torch.tensor([0, 1, 1, 0]))


def build(split: Split, kind: str = "classification", num_outputs: int = 2) -> Dataset:
    return Dataset("mine", GOOD if kind == "classification" else split, split, None, kind, num_outputs, (2,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split(torch.rand(0, 2), torch.zeros(0, dtype=torch.int64)), "split val: at least one sample"),
        (Split(torch.rand(2, 3), torch.zeros(2, dtype=torch.int64)), r"must have shape \(N, \*\(2,\)\), but have \(2, 3\)"),
        (Split(torch.tensor([[0.0, float("nan")]]), torch.zeros(1, dtype=torch.int64)), "inputs must be finite"),
        (Split(torch.rand(2, 2), torch.zeros(2)), "classes must be int64"),
        (Split(torch.rand(2, 2), torch.tensor([0, 2])), r"classes must lie in 0..1, but lie in 0..2"),
        (Split(torch.rand(2, 2), torch.tensor([-1, 0])), r"classes must lie in 0..1, but lie in -1..0"),
    ],
)
def test_a_bad_split_is_named(split: Split, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(split)


@pytest.mark.parametrize("targets", [torch.rand(3), torch.rand(3, 2), torch.full((3, 1), float("inf"))])
def test_targets_of_a_regression_are_finite_columns(targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"targets must be finite and of shape \(N, 1\)"):
        build(Split(torch.rand(3, 2), targets), "regression", 1)


def test_each_input_has_a_target() -> None:
    with pytest.raises(ValueError, match="got 3 inputs, 2 targets"):
        Split(torch.rand(3, 1), torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can see")
def test_to_moves_everything_and_keeps_the_types() -> None:
    image = Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    moved = Dataset("i", image, image, image, "classification", 2, (1, 2, 2), None, torch.zeros(1), torch.ones(1)).to("cuda")
    tensors = [
        moved.mean,
        moved.std,
        *(t for s in ("train", "val", "test") for t in (moved.split(s).inputs, moved.split(s).targets)),
    ]
    assert all(t is not None and t.is_cuda for t in tensors)
    assert moved.train.inputs.dtype == torch.uint8


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [(None, None, 100.0), (90.0, None, 10.0), (None, 4.0, 25.0), (90.0, 4.0, 2.5)],
)
def test_mean_and_deviation_count_each_by_itself(mean: float | None, std: float | None, expected: float) -> None:
    split = Split(torch.full((4, 2), 100, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    values = {k: torch.tensor(v) for k, v in (("mean", mean), ("std", std)) if v is not None}
    found = Dataset("mine", split, split, None, "classification", 2, (2,), **values).normalise(split.inputs)
    assert found.dtype == torch.float32 and found.tolist() == [[expected] * 2] * 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"std": torch.zeros(2)}, "std must be finite and above 0, but is"),
        ({"mean": torch.tensor(float("nan"))}, "mean must be finite, but is nan"),
        ({"mean": torch.zeros(3)}, r"mean must fit inputs \(N, \*\(2,\)\), but has shape \(3,\)"),
        ({"std": torch.ones(4, 2)}, r"std must fit inputs .* has shape \(4, 2\)"),
    ],
)
def test_a_normalisation_that_cannot_be_is_named(values: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Dataset("mine", GOOD, GOOD, None, "classification", 2, (2,), **values)
