"""Each trigger against the contract, and what it alone promises."""

import math

import pytest

from scheduler.triggers import TRIGGERS, Progress, build_trigger
from tests.support.trigger_contract import TriggerContract, acts, flat, flat_history


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


class TestPlateau(TriggerContract):
    watches = ("val_loss",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "plateau", {"patience": 2}

    def fires(self, values: list[float], acted: tuple[int, ...] = (), **arguments: object) -> bool:
        history = tuple({"val_loss": v} for v in values)
        return build_trigger("plateau", {"patience": 2, **arguments}).fires(Progress(len(values), 100, history, acted))

    def test_acts_after_patience_epochs_without_improvement(self) -> None:
        assert not self.fires([3.0, 2.0, 2.0])
        assert self.fires([3.0, 2.0, 2.0, 2.0])
        assert not self.fires([3.0, 2.0, 2.0, 1.0])

    def test_small_improvements_do_not_count(self) -> None:
        assert self.fires([1.0, 0.999, 0.998], threshold=0.01)
        assert not self.fires([1.0, 0.95, 0.9], threshold=0.01)

    def test_counts_anew_after_an_act(self) -> None:
        assert not self.fires([1.0, 1.0, 1.0, 1.0], acted=(3,))
        assert self.fires([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], acted=(3,))

    def test_rising_metrics(self) -> None:
        assert self.fires([0.5, 0.5, 0.5], mode="max")
        assert not self.fires([0.5, 0.6, 0.7], mode="max")

    def test_not_a_number_does_not_improve(self) -> None:
        nan = float("nan")
        assert self.fires([1.0, nan, nan])

    def test_a_metric_that_is_not_reported_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="val_accurcy"):
            self.fires([1.0, 1.0, 1.0, 1.0], metric="val_accurcy")


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

    def test_takes_counts_and_fractions_only(self) -> None:
        trigger = build_trigger("cosine", {})
        assert trigger.refuses(8, "now") is None and trigger.refuses(0.3, "seed") is None
        assert "not above" in (trigger.refuses(0.1, "above") or "")


class TestScore(TriggerContract):
    watches = ("score_best",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "score", {"threshold": 0.5}

    def fires(self, signals: dict[str, float], **arguments: object) -> bool:
        return build_trigger("score", arguments).fires(Progress(3, 9, flat_history(3), signals=({}, {}, signals)))

    def test_above_and_below(self) -> None:
        assert self.fires({"score_best": 2.0}, threshold=1.9) and not self.fires({"score_best": 2.0}, threshold=2.0)
        assert self.fires({"score_worst": 0.1}, signal="score_worst", mode="below", threshold=0.2)
        assert not self.fires({"score_worst": 0.2}, signal="score_worst", mode="below", threshold=0.2)

    @pytest.mark.parametrize(
        ("gain", "eta", "acts"), [(0.04, 1.0, True), (0.02, 1.0, False), (0.002, 0.001, False), (3.1, 100.0, True)])
    def test_senn_wants_a_relative_and_an_absolute_gain(self, gain: float, eta: float, acts: bool) -> None:
        senn = {"signal": "signal_gain", "threshold": 0.03, "relative_to": "signal_eta", "least": 2.5e-3}
        assert self.fires({"signal_gain": gain, "signal_eta": eta}, **senn) == acts

    def test_nothing_offered_is_no_act_but_a_method_without_scores_is_an_error(self) -> None:
        assert not self.fires({"advised": 0.0, "offered": 0.0})
        with pytest.raises(KeyError, match=r"score_best.*only \['advised', 'offered'\]"):
            self.fires({"advised": 0.0, "offered": 3.0})
        with pytest.raises(KeyError, match="signal_eta"):
            self.fires({"score_best": 1.0, "offered": 3.0}, relative_to="signal_eta")

    def test_not_a_number_does_not_fire(self) -> None:
        assert not self.fires({"score_best": float("nan")}) and not self.fires({"score_best": 1.0, "signal_x": float("nan")},
                                                                              relative_to="signal_x")


class TestSplitting(TriggerContract):
    watches = ("score_best",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "splitting", {}

    @pytest.mark.parametrize(("score", "acts"), [(1e-9, True), (0.0, False), (-0.2, False)])
    def test_acts_where_the_smallest_eigenvalue_is_negative(self, score: float, acts: bool) -> None:
        signals = ({"score_best": score, "offered": 4.0},)
        assert build_trigger("splitting", {}).fires(Progress(1, 9, flat_history(1), signals=signals)) == acts


class TestLearned(TriggerContract):
    watches = ("advised",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "learned", {}

    def test_acts_when_enough_is_advised(self) -> None:
        trigger = build_trigger("learned", {"least": 3})
        found = [trigger.fires(Progress(1, 9, flat_history(1), signals=({"advised": float(n)},))) for n in range(5)]
        assert found == [False, False, False, True, True]


class TestRank(TriggerContract):
    watches = ("rank_best",)

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        return "rank", {"gamma": 0.9}

    def fires(self, ranks: list[float | None], **arguments: object) -> bool:
        signals = tuple({} if r is None else {"rank_best": r, "rank_mean": r / 2} for r in ranks)
        return build_trigger("rank", arguments).fires(Progress(len(ranks), 99, flat_history(len(ranks)), signals=signals))

    def test_acts_while_the_rank_is_above_a_share_of_the_first(self) -> None:
        assert self.fires([0.8, 0.5, 0.73], gamma=0.9) and not self.fires([0.8, 0.9, 0.72], gamma=0.9)
        assert self.fires([0.8, 0.9, 0.73], gamma=0.9) and not self.fires([0.8, 0.9, 0.73], gamma=0.9, reference="largest")
        assert self.fires([0.8, 0.9, 0.82], gamma=0.9, reference="largest", signal="rank_mean")

    def test_epochs_without_a_measurement_do_not_count(self) -> None:
        assert self.fires([None, 0.4, 0.4]) and not self.fires([0.8, None, 0.4]) and not self.fires([0.8, None])


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


def test_never_acts_never() -> None:
    assert acts(build_trigger("never", {})) == []


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("plato", {}, "plateau"),
        ("periodic", {"evry": 2}, "every"),
        ("periodic", {"every": 0}, "1 <= every"),
        ("periodic", {"every": "two"}, "must be a number"),
        ("periodic", {"every": 1.5}, "a whole one"),
        ("periodic", {"from": float("nan")}, "must be a number"),
        ("periodic", {"from": 0.8, "until": 0.3}, "from <= until"),
        ("periodic", {"from": 9, "until": 3}, "from <= until"),
        ("score", {"signal": 3}, "must be a name"),
        ("score", {"relative_to": 2.0}, "must be a name"),
        ("score", {"least": "much"}, "must be a number"),
        ("compute", {"budget": "much"}, "must be a number"),
        ("target", {"metric": "seconds"}, "flops"),
        ("rank", {"signal": "rank"}, "rank_mean"),
        ("plateau", {"mode": "down"}, "min"),
        ("tests.support.trigger_contract:acts", {}, "subclass"),
    ],
)
def test_bad_names_and_arguments_are_explained(name: str, arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_trigger(name, arguments)


def test_own_triggers_are_found_by_reference() -> None:
    assert build_trigger("scheduler.triggers.schedule:Periodic", {"every": 2}) == build_trigger("periodic", {"every": 2})


def test_every_trigger_of_the_table_is_tested() -> None:
    suites = [found for found in globals().values() if isinstance(found, type) and issubclass(found, TriggerContract)]
    tested = {name for suite in suites for name in TRIGGERS if suite.__name__ == f"Test{name.title()}"}
    assert set(TRIGGERS) == tested | {"never"}
    assert all(trigger.why and trigger.paper for trigger in TRIGGERS.values())
