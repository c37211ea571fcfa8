"""Each trigger against the contract, and what it alone promises."""

import pytest

from scheduler.triggers import TRIGGERS, Progress, build_trigger
from tests.support.trigger_contract import TriggerContract, acts


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


def test_never_acts_never() -> None:
    assert acts(build_trigger("never", {})) == []


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("plato", {}, "plateau"),
        ("periodic", {"evry": 2}, "every"),
        ("periodic", {"every": 0}, "1 <= every"),
        ("periodic", {"every": "two"}, "must be a number"),
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
    assert set(TRIGGERS) == {"never", "periodic", "plateau"}
