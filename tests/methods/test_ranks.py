"""Ranks that train one network measure together what one process would measure, and change the network alike."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from coppice.methods.adaptation.consensus import agree_on_plans
from coppice.methods.catalog import GROWTH, PRUNING
from coppice.methods.plan import GrowPlan
from coppice.methods.ranks import ALONE, Ranks
from coppice.methods.surgery.check import PlanError
from tests.methods import ranks_cases
from tests.methods.ranks_cases import METHODS, ROWS, batches, measured, plain, signals
from tests.support.ranks import finished, start


@pytest.fixture(scope="module")
def alone():
    return {name: measured(case, ALONE) for name, case in METHODS.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory, request):
    """What both ranks have found; this process measures meanwhile."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = start(folder, 2, ranks_cases.__name__)
    request.getfixturevalue("alone")
    return finished(folder, processes)


def close(one: Tensor, other: Tensor, up_to_sign: bool = False) -> bool:
    """Equal but for rounding in float64, which decompositions and training steps amplify."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    one, other = one.detach().double(), other.detach().double()
    if up_to_sign:
        one, other = one.abs(), other.abs()
    scale = float(one[one.isfinite()].abs().max()) if bool(one.isfinite().any()) else 0.0
    return torch.allclose(one, other, rtol=1e-5, atol=1e-7 * scale + 1e-14, equal_nan=True)


def test_every_method_of_the_tables_is_a_case():
    assert {f"{c.kind} {c.name}" for c in METHODS.values()} == {f"grow {n}" for n in GROWTH} | {f"prune {n}" for n in PRUNING}


SIGNED = ("/rows", "/incoming", "/outgoing", ".weight:0", ".weight:1")
"""Of units behind an odd activation, which are as good as their negatives: rounding decides."""


def why_not(one: dict, two: dict) -> str:
    """In what two measurements differ; nothing when they are the same."""
    for part in ("elements", "advised"):
        if one[part] != two[part]:
            return part
    if list(one["tensors"]) != list(two["tensors"]) or one["signals"].keys() != two["signals"].keys():
        return "names"
    held = ((key, tensor, two["tensors"][key]) for key, tensor in one["tensors"].items())
    signed = {key for key in one["tensors"] if key.endswith(SIGNED) and not key.startswith("scores/")}
    different = [f"{key}: {a} {b}" for key, a, b in held if not close(a, b, key in signed)]
    return ", ".join(different + [k for k, v in one["signals"].items() if two["signals"][k] != pytest.approx(v, rel=1e-6)])


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_measure_what_one_process_does(name, alone, found):
    for rank in found:
        assert not why_not(alone[name], rank[f"measured {name}"])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the bit; what is not known (NaN) in the same places."""
    pairs = [(t, b[n]) for n, t in a.items()] if a.keys() == b.keys() else [(torch.ones(1), torch.zeros(1))]
    return all(t.dtype == u.dtype and t.shape == u.shape and torch.allclose(t, u, 0.0, 0.0, True) for t, u in pairs)


@pytest.mark.parametrize("name", [n for n in ranks_cases.CASES if n.startswith(("acted", "forgets"))])
def test_all_ranks_carry_out_what_rank_0_plans(name, found):
    """Rank 1 accepts, measures, plans and promises something else, and its random numbers are others."""
    first, second = (rank[name] for rank in found)
    assert first["events"] and first["events"] == second["events"] and first["skipped"] == second["skipped"]
    assert same(first["tensors"], second["tensors"]) and same(first["companion"], second["companion"])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_finite_on_one_rank_is_so_for_all(name, found):
    """None of them waits for the other for ever, and networks stay the same."""
    first, second = (rank[f"blown {name}"] for rank in found)
    assert first["events"] == second["events"] and first["skipped"] == second["skipped"]
    assert same(first["tensors"], second["tensors"])


@pytest.mark.parametrize("name", ranks_cases.FEW)
def test_a_measurement_that_fails_on_one_rank_is_a_skipped_event_on_all(name, found):
    first, second = (rank[f"fails {name}"] for rank in found)
    assert not first["events"] and not second["events"]
    assert first["skipped"] == second["skipped"] and "finite" in first["skipped"][0]


def test_signals_are_those_of_one_process(found):
    expected = signals(ALONE)
    assert {"train_accuracy", "train_r2", "rank_best", "score_best"} <= expected.keys()
    assert found[0]["signals"] == found[1]["signals"] == pytest.approx(expected, rel=1e-6)


class Half(Ranks):
    """The first of two ranks, without the other one, which has as many samples: other sums are its own."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.summed = False

    def sum(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self.summed |= tensor.is_floating_point()
            if not tensor.is_floating_point():
                tensor.mul_(2)


@pytest.mark.parametrize("name", METHODS)
def test_a_sum_that_is_left_out_would_be_seen(name, alone):
    """On the share of one rank alone a method with something to sum measures something else, or fails; others do not."""
    half = Half()
    try:
        differs = bool(why_not(alone[name], measured(METHODS[name], half)))
    except (RuntimeError, PlanError):
        differs = True
    assert differs == half.summed


class Third(Ranks):
    """One of three ranks; the others are silent."""

    size = 3

    def __init__(self, rank: int) -> None:
        self.rank = rank


def test_shards_are_all_rows_of_all_batches_once():
    ctx = plain(None)
    parts = [list(replace(ctx, ranks=Third(rank)).shards(2)) for rank in range(3)]
    assert [len(x) for x, _ in (p[0] for p in parts)] == [3, 2, 2]
    for number, whole in enumerate(batches()[:2]):
        for i, tensor in enumerate(whole):
            assert torch.equal(torch.cat([p[number][i] for p in parts]), tensor)


def test_alone_the_shard_is_the_batch_itself():
    ctx = plain(None)
    assert all(a is b for a, b in zip(ctx.shards(3), batches(), strict=True))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ((torch.zeros(2, 3), torch.zeros(2)), "at least as many rows as there are ranks .3., but has 2; raise batch_size"),
        ((torch.zeros(6, 3), torch.zeros(12)), r"as many rows, .* \[6, 12\] rows"),
        (({"x": torch.zeros(6)}, torch.zeros(6)), r"as many rows, .* \[None, 6\] rows \(dict, Tensor\)"),
        ((torch.zeros(6), torch.zeros(())), r"as many rows, .* \[6, None\]"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(batch, says):
    ctx = replace(plain(None), batches=lambda count: [batch] * count, ranks=Third(1))
    with pytest.raises(ValueError, match=says):
        list(ctx.shards(1))


def test_the_share_of_every_rank_is_a_partition():
    for rows in range(3, 20):
        taken = [i for rank in range(3) for i in range(rows)[Third(rank).share(rows)]]
        assert taken == list(range(rows)) and ALONE.share(rows) == slice(0, rows)


def test_alone_nothing_is_packed():
    """Plans, tensors and values are passed on themselves."""
    plans, tensors, value = [GrowPlan("a", 1)], {"a": torch.zeros(1)}, (1, [2])
    assert agree_on_plans(ALONE, plans, [])[0] is plans and ALONE.from_rank_0(value) is value
    assert ALONE.same(tensors)["a"] is tensors["a"] and ALONE.count(ROWS) == ROWS and ALONE.number(0.1) == 0.1


def test_a_plan_that_is_not_finite_is_told_and_not_carried_out():
    plans = [GrowPlan("a", 1, predicted_gain=float("nan")), GrowPlan("b", 1, values={"w:0": torch.ones(1, 2)})]
    (kept,), told = agree_on_plans(Half(), plans, ["c: no"])
    assert kept.element == "b" and torch.equal(kept.values["w:0"], torch.ones(1, 2))
    assert told[0] == "c: no" and told[1].startswith("a: the plan holds numbers that are not finite")
