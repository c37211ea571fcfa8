"""TINY at wide layers that few samples are known of: in factors it measures what it does with moments, and holds less."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.growth.first_order.covariance import Moments
from coppice.methods.growth.tiny.bottleneck import Bottleneck, Settings
from coppice.methods.growth.tiny.factored_moments import FactoredMoments
from coppice.methods.growth.tiny.whitening import Whitening
from coppice.methods.measures.site import site_of
from coppice.methods.method import Context
from tests.methods.growth.test_gradmax import Pool, double

N = 4
NETWORKS = {
    "max pooling and batch norm": (
        lambda: nn.Sequential(nn.Conv2d(16, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2),
                              Pool(3)), (16, 6, 6)),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(10, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 1, 1),
                              Pool(3)), (10, 6, 6)),
    "bias": (lambda: nn.Sequential(nn.Conv2d(16, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 2, bias=False), Pool(3)), (16, 5, 5)),
    "narrow": (lambda: nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3)), (20,)),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(10, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(36, 3)), (10, 5, 5)),
}  # fmt: skip
NAME = "0.weight:0"
SMALL = Settings(natural_step=True, projection=True, whitening=True, threshold=1e-4, cut=1e-2, num_batches=2)


def two_batches(name: str) -> Context:
    factory, shape = NETWORKS[name]
    ctx = double(factory(), *shape, n=2 * N)
    inputs, targets = next(iter(ctx.batches(1)))
    return dataclasses.replace(ctx, batches=lambda count: [*zip(inputs.split(N), targets.split(N), strict=True)][:count])


def run(ctx: Context, settings: Settings, samples: int) -> Bottleneck:
    bottleneck = Bottleneck(settings, ctx, {NAME: site_of(ctx.network, ctx.network.element(NAME))}, samples)
    bottleneck.run()
    return bottleneck


def units(measured: Bottleneck) -> dict[str, Tensor]:
    """What is measured, without the signs of units."""
    data = measured.units(NAME, 3)
    sign = data["incoming"][:, :1].sign()
    data["outgoing"] = data["outgoing"].flatten(1) * sign
    data["incoming"] = data["incoming"] * sign
    return {**data, **({"mean": data["mean"] * sign[:, 0]} if "mean" in data else {})}


@pytest.mark.parametrize("changed", [{}, {"projection": False}, {"whitening": False}, {"natural_step": False}], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_factors_measure_what_moments_do(name, changed):
    ctx, settings = two_batches(name), dataclasses.replace(SMALL, **changed)
    full, thin = run(ctx, settings, 0), run(ctx, settings, 2 * N)
    assert isinstance(full.moments[NAME], Moments) and isinstance(thin.moments[NAME], FactoredMoments)
    expected, factored = units(full), units(thin)
    assert len(expected["scores"]) and expected.keys() == factored.keys()
    assert ("variance" in factored) == ("norm" in name) and ("natural" in factored) == settings.natural_step
    for key, value in expected.items():
        assert torch.allclose(factored[key], value, rtol=1e-7, atol=1e-9 * float(value.abs().max())), key


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("samples", "kind"), [(N, Moments), (N // 2, Moments), (2 * N + 1, FactoredMoments)])
def test_more_samples_than_expected_are_added_up_and_fewer_leave_columns_out(name, samples, kind):
    ctx = two_batches(name)
    full, bottleneck = run(ctx, SMALL, 0), run(ctx, SMALL, samples)
    assert isinstance(bottleneck.moments[NAME], kind)
    expected, got = units(full), units(bottleneck)
    for key, value in expected.items():
        assert torch.allclose(got[key], value, rtol=1e-7, atol=1e-9 * float(value.abs().max())), key


def test_more_positions_than_entries_are_added_up_at_once():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), Pool(3))
    bottleneck = run(double(net, 2, 8, 8, n=2), dataclasses.replace(SMALL, num_batches=1), 2)
    assert isinstance(bottleneck.moments[NAME], Moments)


def size(tensors: list[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


def test_a_wide_layer_that_has_seen_little_holds_little():
    """Two layers of 128 channels at one position of four samples: rows of 1152 entries, of which there are four."""
    net = nn.Sequential(nn.Conv2d(128, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 128, 3, 1, 1))
    ctx = double(nn.Sequential(*net, Pool(128)), 128, 1, 1, n=4)
    held = {}
    for samples in (0, 4):
        bottleneck = run(ctx, dataclasses.replace(SMALL, num_batches=1), samples)
        moments = bottleneck.moments[NAME]
        held[samples] = size([t for t in (*moments.tensors(), moments.missing) if t is not None])
    assert held[4] < 8 * 1152 * 4 * 4 and held[0] > 8 * 1152 * 1152 * 3, held
    measured = bottleneck.units(NAME, 2)
    assert not bottleneck.moments and size([*measured.values()]) < 8 * 1152 * 150


def test_other_samples_in_the_second_pass_are_an_error():
    ctx = two_batches("batch norm")
    inputs, targets = next(iter(ctx.batches(1)))
    calls = iter(range(99))
    shuffled = dataclasses.replace(ctx, batches=lambda count: [(inputs.roll(next(calls), 0), targets)])
    with pytest.raises(ValueError, match=r"same samples each time"):
        run(shuffled, SMALL, N)
    other = dataclasses.replace(ctx, batches=lambda count: [(inputs, targets)] * (1 + next(calls) % 2))
    for samples in (0, 2 * N):
        for _ in range(2):  # more samples in the second pass, then fewer
            with pytest.raises(ValueError, match=r"same samples each time"):
                run(other, SMALL, samples)
            next(calls)


def test_what_rounding_made_negative_is_left_out_of_an_inverse_root():
    white = Whitening.of(torch.diag(torch.tensor([2.0, 1.0, -0.5, 0.01], dtype=torch.float64)), 0.1)
    root = white.back(torch.eye(white.factor.shape[1], dtype=torch.float64))
    assert not white.triangular and torch.allclose(root @ root.T, torch.diag(torch.tensor([0.5, 1.0, 0.0, 0.0]).double()))
    assert torch.allclose(white.left(torch.eye(4, dtype=torch.float64)), root.T)
