"""Triggers that follow the clock, against the contract and for what they alone promise."""

import math

import pytest

from coppice.scheduler.triggers import Progress, build_trigger
from coppice.testing.trigger import TriggerContract, acts, flat, flat_history


class TestPeriodic(TriggerContract):
    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "periodic", {"every": 2}

    def test_acts_every_so_many_epochs(self) -> None:
        assert acts(build_trigger("periodic", {"every": 3}), 10) == [3, 6, 9]

    def test_counts_from_its_start(self) -> None:
        assert acts(build_trigger("periodic", {"every": 4, "from": 5}), 14) == [5, 9, 13]

    def test_fractions_and_epochs_mean_the_same(self) -> None:
        a = build_trigger("periodic", {"every": 2, "from": 0.5, "until": 0.75})
        b = build_trigger("periodic", {"every": 2, "from": 10, "until": 15})
        assert acts(a) == acts(b) == [10, 12, 14]


class TestCubic(TriggerContract):
    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "cubic", {"every": 2}

    def sparsity(self, amount: float, epochs: int, **arguments: object) -> dict[int, float]:
        """Sparsity after each act, when each removes exactly what is asked of it."""
        trigger = build_trigger("cubic", arguments)
        dense, acted, found = 1.0, [], {}
        for epoch in range(1, epochs + 1):
            progress = Progress(epoch, epochs, flat_history(epoch), tuple(acted))
            if trigger.fires(progress):
                dense *= 1 - trigger.amount(progress, amount)
                acted.append(epoch)
                found[epoch] = 1 - dense
        return found

    def test_sparsity_follows_the_cube(self) -> None:
        found = self.sparsity(0.9, 40, every=3, until=30)
        assert list(found) == list(range(3, 31, 3))
        for epoch, sparsity in found.items():
            assert sparsity == pytest.approx(0.9 * (1 - (1 - epoch / 30) ** 3), abs=1e-12)

    def test_counts_from_its_start_with_an_initial_sparsity(self) -> None:
        found = self.sparsity(0.8, 100, every=10, initial=0.2, **{"from": 20, "until": 60})
        assert list(found) == [20, 30, 40, 50, 60] and found[20] == pytest.approx(0.2)
        assert found[40] == pytest.approx(0.8 - 0.6 * 0.5**3)
        assert self.sparsity(0.8, 100, every=10, **{"from": 20, "until": 60})[60] == pytest.approx(0.8)

    @pytest.mark.parametrize(("epochs", "arguments", "last"), [
        (10, {"until": 1.0}, 9), (10, {"every": 4, "until": 7}, 7), (7, {"every": 50}, 5), (2, {}, 1),
        (9, {"from": 4, "until": 4}, 4),
    ])  # fmt: skip
    def test_ends_at_the_final_sparsity_while_training_goes_on(self, epochs: int, arguments: dict, last: int) -> None:
        found = self.sparsity(0.6, epochs, **arguments)
        assert max(found) == last and found[last] == pytest.approx(0.6, abs=1e-12)

    def test_catches_up_after_a_rest(self) -> None:
        found = self.sparsity(0.9, 40, every=1, until=30, cooldown=4)
        for epoch, sparsity in found.items():
            assert sparsity == pytest.approx(0.9 * (1 - (1 - epoch / 30) ** 3), abs=1e-12)

    def test_power_one_is_a_straight_line(self) -> None:
        assert self.sparsity(0.8, 40, every=10, until=20, power=1.0) == pytest.approx({10: 0.4, 20: 0.8})

    @pytest.mark.parametrize(("amount", "of", "said"), [
        (3, "now", "a fraction from 0.0 to 1.0"),
        (1.0, "now", "amount < 1"), (0.5, "seed", "fraction of now"),
        (0.0, "advised", "of advised"), (0.05, "now", "initial=0.1"),
    ])  # fmt: skip
    def test_amounts_that_are_no_final_sparsity(self, amount: float, of: str, said: str) -> None:
        assert said in (build_trigger("cubic", {"initial": 0.1}).refuses(amount, of) or "")
        assert build_trigger("cubic", {}).refuses(0.5, "now") is None


class TestCosine(TriggerContract):
    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "cosine", {"every": 2}

    def test_falls_from_the_amount_to_nothing(self) -> None:
        trigger = build_trigger("cosine", {"every": 5, "until": 0.75})
        assert acts(trigger, 40) == [5, 10, 15, 20, 25]
        for epoch in (5, 10, 15, 25):
            wanted = 0.3 / 2 * (1 + math.cos(math.pi * epoch / 30))
            assert trigger.amount(flat(trigger, epoch, 40), 0.3) == pytest.approx(wanted)
        assert trigger.amount(flat(trigger, 15, 40), 0.3) == pytest.approx(0.15)
        later = build_trigger("cosine", {"every": 5, "from": 20, "until": 30})
        assert acts(later, 40) == [20, 25]
        assert [later.amount(flat(later, epoch, 40), 0.3) for epoch in (20, 25)] == pytest.approx([0.3, 0.15])

    def test_takes_counts_and_fractions_only(self) -> None:
        trigger = build_trigger("cosine", {})
        assert trigger.refuses(8, "now") is None and trigger.refuses(0.3, "seed") is None
        assert "not above" in (trigger.refuses(0.1, "above") or "")
