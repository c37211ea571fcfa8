"""Triggers that look at costs and generalisation, against the contract and for what they alone promise."""

import math

import pytest

from coppice.scheduler.triggers import Progress, build_trigger
from coppice.testing.trigger import TriggerContract, acts, flat, flat_history


class TestOverfitting(TriggerContract):
    watches = ("train_accuracy", "val_accuracy")

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "overfitting", {"acts": 50}

    def test_the_interval_is_the_papers(self) -> None:
        trigger = build_trigger("overfitting", {"acts": 5, "until": 0.8})
        progress = flat(trigger, 1, 100)
        assert trigger.interval(progress, 4.0) == pytest.approx(80 / 5 / 2)
        assert trigger.interval(progress, 0.0) == pytest.approx(16 / (1 + math.e**4))
        assert trigger.interval(progress, 50.0) == pytest.approx(16) and trigger.interval(progress, -1e6) == 0.0

    @pytest.mark.parametrize(("train", "first"), [(0.5, 1), (0.54, 9), (0.56, 15), (0.9, 16)])
    def test_more_overfitting_means_longer_intervals(self, train: float, first: int) -> None:
        trigger = build_trigger("overfitting", {"acts": 5, "until": 0.8})
        found = [
            epoch for epoch in range(1, 101)
            if trigger.fires(Progress(epoch, 100, flat_history(epoch), signals=({"train_accuracy": train},) * epoch))
        ]  # fmt: skip
        assert found[0] == first

    def test_rests_after_its_last_act(self) -> None:
        assert acts(build_trigger("overfitting", {"acts": 3, "until": 0.5})) == [1, 2, 3]

    def test_regression_compares_r2(self) -> None:
        trigger = build_trigger("overfitting", {})
        progress = Progress(1, 9, ({"val_r2": 0.5},), signals=({"train_r2": 0.75},))
        assert trigger.risk(progress) == pytest.approx(25.0)
        with pytest.raises(KeyError, match="val_r2"):
            trigger.fires(Progress(1, 9, ({"val_accuracy": 0.5},), signals=({"train_r2": 0.75},)))


class TestCompute(TriggerContract):
    watches = ("compute",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "compute", {"share": 0.05}

    def acts_of(self, costs: list[float], **arguments: object) -> list[int]:
        """Epochs of acts, for what each epoch computes."""
        trigger, acted, history, total = build_trigger("compute", arguments), [], [], 0.0
        for epoch, cost in enumerate(costs, 1):
            total += cost
            history.append({"compute": total})
            if trigger.fires(Progress(epoch, len(costs), tuple(history), tuple(acted))):
                acted.append(epoch)
        return acted

    def test_acts_each_time_a_share_is_spent(self) -> None:
        assert self.acts_of([1.0] * 20, share=0.2) == [4, 8, 12, 16, 20]
        assert self.acts_of([1e17 / 3] * 20, share=0.1) == list(range(2, 21, 2))

    def test_a_dearer_network_is_changed_after_fewer_epochs(self) -> None:
        assert self.acts_of([1.0] * 8 + [2.0] * 12, share=0.2) == [4, 8, 10, 12, 14, 16, 18, 20]

    def test_counts_from_its_span_and_a_budget_ends(self) -> None:
        assert self.acts_of([1.0] * 20, share=0.2, **{"from": 7}) == [10, 14, 18]
        assert self.acts_of([1.0] * 20, share=0.25, budget=12.0) == [3, 6, 9, 12]

    def test_what_was_missed_in_a_rest_is_one_act(self) -> None:
        assert self.acts_of([1.0] * 20, share=0.1, cooldown=4, until=12) == [2, 7, 12]


class TestTarget(TriggerContract):
    watches = ("parameters",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "target", {"size": 5000.0}

    @pytest.mark.parametrize(("kind", "start", "order"), [(k, s, o) for k, s in (("grow", 1e3), ("prune", 1e5)) for o in (1, 2)])
    def test_reaches_the_size_from_its_side_and_holds_it(self, kind: str, start: float, order: int) -> None:
        """Of a network whose size is between linear and quadratic in its widths."""
        trigger = build_trigger("target", {"size": 10000.0, "order": order, "metric": "flops"})
        width, sizes = 1.0, []
        for epoch in range(1, 30):
            size = start * (width + width**2) / 2 if order == 2 else start * width
            sizes.append(size)
            progress = Progress(epoch, 30, ({"flops": size},), kind=kind)
            if not trigger.fires(progress):
                break
            part = trigger.amount(progress, 0.5)
            assert 0 < part <= 0.5
            width *= 1 + part if kind == "grow" else 1 - part
        assert epoch < 20 and sizes == sorted(sizes, reverse=kind == "prune")
        assert sizes[-1] == pytest.approx(10000, rel=0.02)
        assert (sizes[-1] <= 10000 * (1 + 1e-9)) if kind == "grow" else (sizes[-1] >= 10000 * (1 - 1e-9))

    @pytest.mark.parametrize(("size", "grows", "prunes"), [(800.0, True, False), (990.0, False, False), (1300.0, False, True)])
    def test_grows_holds_or_shrinks(self, size: float, grows: bool, prunes: bool) -> None:
        trigger = build_trigger("target", {"size": 1000.0})
        found = [trigger.fires(Progress(1, 9, ({"parameters": size},), kind=kind)) for kind in ("grow", "prune")]
        assert found == [grows, prunes]

    def test_takes_fractions_only(self) -> None:
        trigger = build_trigger("target", {})
        assert trigger.refuses(1.0, "now") is None
        assert all(trigger.refuses(*a) for a in ((1, "now"), (0.5, "seed"), (0.0, "advised"), (2.0, "now")))
