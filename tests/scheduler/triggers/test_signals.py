"""Triggers that look at measured signals and at metrics, against the contract and for what they alone promise."""

import pytest

from coppice.scheduler.triggers import Progress, build_trigger
from coppice.testing.trigger import TriggerContract, flat_history


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
            self.fires([1.0, 1.0, 1.0, 1.0], metric="val_accurcy", mode="max")


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

    @pytest.mark.parametrize(("gain", "eta", "acts"), [
        (0.04, 1.0, True), (0.02, 1.0, False), (0.002, 0.001, False), (3.1, 100.0, True), (2.5e-3, 1e-3, False),
    ])  # fmt: skip
    def test_senn_wants_a_relative_and_an_absolute_gain(self, gain: float, eta: float, acts: bool) -> None:
        senn = {"signal": "signal_gain", "threshold": 0.03, "relative_to": "signal_eta", "least": 2.5e-3}
        assert self.fires({"signal_gain": gain, "signal_eta": eta}, **senn) == acts

    def test_nothing_offered_is_no_act_but_a_method_without_scores_is_an_error(self) -> None:
        assert not self.fires({"advised": 0.0, "offered": 0.0})
        assert not self.fires({"signal_gain": 1.0, "offered": 0.0}, signal="signal_gain", relative_to="score_best")
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
