"""Losses and metrics against plain formulas; evaluation leaves no trace."""

import math

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional

from coppice.orchestrator.config.models import Named
from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.dataset import Dataset, Split
from coppice.orchestrator.tasks.losses import loss_for
from coppice.orchestrator.tasks.metrics import evaluate

WINE, DIABETES = load_dataset("wine"), load_dataset("diabetes")


def absolute(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().mean()


def power(exponent: float) -> object:
    return lambda output, target: (output - target).abs().pow(exponent).mean()


def test_the_loss_suits_the_kind_of_data_set() -> None:
    scores, classes, values = torch.randn(6, 3), torch.randint(0, 3, (6,)), torch.randn(6, 3)
    assert torch.equal(loss_for(WINE)(scores, classes), functional.cross_entropy(scores, classes))
    assert torch.equal(loss_for(DIABETES)(scores, values), functional.mse_loss(scores, values))


def test_label_smoothing_by_its_formula() -> None:
    scores, classes = torch.randn(6, 3), torch.randint(0, 3, (6,))
    smoothed = torch.full((6, 3), 0.2 / 3).scatter_add(1, classes[:, None], torch.full((6, 1), 0.8))
    expected = -(smoothed * scores.log_softmax(1)).sum(1).mean()
    for name in ({"cross_entropy": {"label_smoothing": 0.2}}, Named(name="cross_entropy", arguments={"label_smoothing": 0.2})):
        assert torch.allclose(loss_for(WINE, name)(scores, classes), expected)


def test_your_own_loss_with_and_without_arguments() -> None:
    output, target = torch.randn(5, 1), torch.randn(5, 1)
    assert loss_for(DIABETES, f"{__name__}:absolute")(output, target) == (output - target).abs().mean()
    assert loss_for(DIABETES, {f"{__name__}:power": {"exponent": 3}})(output, target) == (output - target).abs().pow(3).mean()
    assert torch.equal(loss_for(DIABETES, "torch.nn:SmoothL1Loss")(output, target), functional.smooth_l1_loss(output, target))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("cros_entropy", ValueError, r"unknown loss 'cros_entropy' \(did you mean 'cross_entropy'\?\)"),
        ("mse", ValueError, "loss mse is for regression, but dataset wine is a classification"),
        ({"cross_entropy": {"label_smoothing": 1.0}}, ValueError, "0 <= label_smoothing < 1 must hold"),
        ({"cross_entropy": {"smoothing": 0.1}}, ValueError, "its arguments must fit"),
        ({"cross_entropy": {}, "mse": {}}, ValueError, "a mapping of one name"),
    ],
)
def test_a_loss_that_cannot_be_says_why(name: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        loss_for(WINE, name)  # type: ignore[arg-type]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same shape, not \(5,\), \(5, 1\)"):
        loss_for(DIABETES)(torch.randn(5), torch.randn(5, 1))
    with pytest.raises(ValueError, match=r"must return \(71, 1\) for such targets, but returns \(71,\)"):
        evaluate(nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)), DIABETES, "val", lambda o, t: o.mean())


@pytest.mark.parametrize("batch_size", [7, 512])
def test_classification_by_hand(batch_size: int) -> None:
    module = nn.Linear(13, 3)
    metrics = evaluate(module, WINE, "val", loss_for(WINE), batch_size)
    scores = module(WINE.val.inputs).detach()
    assert set(metrics) == {"loss", "accuracy"}
    assert metrics["loss"] == pytest.approx(float(functional.cross_entropy(scores, WINE.val.targets)), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(float((scores.argmax(1) == WINE.val.targets).double().mean()))


@pytest.mark.parametrize("batch_size", [7, 512])
def test_regression_by_hand(batch_size: int) -> None:
    module = nn.Linear(10, 1)
    metrics = evaluate(module, DIABETES, "test", loss_for(DIABETES), batch_size)
    assert DIABETES.test is not None
    output, targets = module(DIABETES.test.inputs).detach(), DIABETES.test.targets
    assert metrics["loss"] == pytest.approx(float(functional.mse_loss(output, targets)), rel=1e-5)
    assert metrics["r2"] == pytest.approx(r2_score(targets.numpy(), output.numpy()), rel=1e-4)
    assert metrics["rmse"] == pytest.approx(float(functional.mse_loss(output, targets)) ** 0.5 * DIABETES.target_std, rel=1e-5)


def test_modes_statistics_and_gradients_are_left_as_they_were() -> None:
    module = nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    module.train()
    module[1].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    first, second = (evaluate(module, WINE, "val", loss_for(WINE)) for _ in range(2))
    assert first == second, "dropout must be off"
    assert [m.training for m in module] == [True, False, True, True] and module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_modes_are_put_back_when_the_network_fails() -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(RuntimeError):
        evaluate(module, WINE, "val", loss_for(WINE))
    assert module.training


def test_what_is_not_finite_is_returned_as_it_is() -> None:
    module, linear = nn.Linear(13, 3), nn.Linear(10, 1)
    nn.init.constant_(module.weight, float("nan"))
    nn.init.constant_(linear.weight, float("inf"))
    assert math.isnan(evaluate(module, WINE, "val", loss_for(WINE))["loss"])
    metrics = evaluate(linear, DIABETES, "val", loss_for(DIABETES))
    assert not math.isfinite(metrics["loss"]) and not math.isfinite(metrics["r2"]) and not math.isfinite(metrics["rmse"])


def test_r2_of_targets_that_do_not_vary_is_nan() -> None:
    split = Split(torch.rand(4, 2), torch.ones(4, 1))
    data = Dataset("flat", split, split, None, "regression", 1, (2,))
    assert math.isnan(evaluate(nn.Linear(2, 1), data, "val", loss_for(data))["r2"])


def test_a_split_that_is_not_there_is_named() -> None:
    split = Split(torch.rand(4, 2), torch.ones(4, 1))
    with pytest.raises(KeyError, match=r"has the splits \['train', 'val'\], but 'test'"):
        evaluate(nn.Linear(2, 1), Dataset("d", split, split, None, "regression", 1, (2,)), "test", absolute)
