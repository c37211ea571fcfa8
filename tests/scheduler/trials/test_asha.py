"""ASHA over compute or epochs: who is stopped, the traps of leaping rungs and of failed trials, and the way back."""

from typing import Any

import pytest

from coppice.scheduler.trials import build_trial_scheduler
from coppice.scheduler.trials.asha import Asha, build_asha
from coppice.scheduler.trials.decisions import PastTrial


def asha(**arguments: Any) -> Asha:
    return build_asha({"max_compute": 64, "grace_compute": 1, "reduction_factor": 2, **arguments}, "accuracy", "max")


def tell(scheduler: Asha, trial: PastTrial, compute: float, accuracy: float) -> str:
    return str(scheduler.on_trial_result(None, trial, {"compute": compute, "accuracy": accuracy}))


def added(scheduler: Asha, name: str, **config: Any) -> PastTrial:
    trial = PastTrial(name, config)
    scheduler.on_trial_add(None, trial)
    return trial


def test_worse_than_half_of_its_rung_is_stopped() -> None:
    scheduler = asha()
    good, bad = added(scheduler, "good"), added(scheduler, "bad")
    assert tell(scheduler, good, 1, 0.9) == "CONTINUE"
    assert tell(scheduler, bad, 1, 0.1) == "STOP"


def test_a_trial_that_leaps_rungs_is_not_judged_at_lower_ones_later() -> None:
    scheduler = asha()
    leaper, slow = added(scheduler, "leaper"), added(scheduler, "slow")
    tell(scheduler, leaper, 8, 0.5)
    tell(scheduler, leaper, 9, 0.95)
    assert scheduler.rungs()[1.0] == {}
    assert tell(scheduler, slow, 1, 0.3) == "CONTINUE"


def test_the_last_rung_does_not_stop_by_itself_but_the_budget_does() -> None:
    scheduler = asha()
    trial = added(scheduler, "t")
    assert tell(scheduler, trial, 64, 0.9) == "CONTINUE"
    assert tell(scheduler, trial, 80, 0.9) == "CONTINUE"
    assert scheduler.stop_at == {"compute": 64.0}


def test_a_failed_trial_neither_goes_on_nor_spoils_the_cutoff() -> None:
    scheduler = asha(reduction_factor=4)
    for name, value in (("a", 0.5), ("b", 0.7), ("c", 0.9)):
        tell(scheduler, added(scheduler, name), 1, value)
    assert tell(scheduler, added(scheduler, "failed"), 1, -1e30) == "STOP"
    assert tell(scheduler, added(scheduler, "weak"), 1, 0.1) == "STOP"


def test_smaller_is_better_in_mode_min() -> None:
    scheduler = build_asha({"max_epochs": 8, "grace_epochs": 1, "reduction_factor": 2}, "loss", "min")
    good, bad = PastTrial("good"), PastTrial("bad")
    scheduler.on_trial_add(None, good)
    scheduler.on_trial_add(None, bad)
    assert scheduler.on_trial_result(None, good, {"epoch": 1, "loss": 0.1}) == "CONTINUE"
    assert scheduler.on_trial_result(None, bad, {"epoch": 1, "loss": 0.9}) == "STOP"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs max_epochs"),
        ({"grace_compute": 1}, "needs max_compute"),
        ({"max_compute": 1, "max_epochs": 1}, "epochs or compute, not both"),
        ({"max_epochs": 8, "grace_compute": 1}, r"not both, but got \['max_epochs', 'grace_compute'\]"),
        ({"max_epochs": 8, "grace": 1, "grace_epochs": 1}, "grace is grace_epochs here"),
        ({"max_compute": 1, "speed": 1}, r"takes .* but got \['speed'\]"),
        ({"max_epochs": 8, "reduction_factor": 1}, "reduction_factor > 1"),
        ({"max_epochs": 8, "grace_epochs": 9}, "grace_epochs < max_epochs"),
        ({"max_epochs": 8, "grace": 9}, "grace_epochs < max_epochs"),
        ({"max_epochs": "many"}, "max_epochs must be a number, but got 'many'"),
        ({"max_epochs": True}, "must be a number"),
        ({"max_compute": float("nan")}, "must be a number"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_asha(arguments, "accuracy", "max")


@pytest.mark.parametrize(
    ("arguments", "first", "most"),
    [
        ({}, ("epoch", 1.0), {"epoch": 12.0}),
        ({"grace": 3}, ("epoch", 3.0), {"epoch": 12.0}),
        ({"grace_epochs": 3}, ("epoch", 3.0), {"epoch": 12.0}),
        ({"max_epochs": 128}, ("epoch", 2.0), {"epoch": 128.0}),
        ({"max_compute": 64}, ("compute", 1.0), {"compute": 64.0}),
        ({"max_compute": 64, "grace": 4}, ("compute", 4.0), {"compute": 64.0}),
    ],
)
def test_what_is_left_out_follows_from_the_longest_trial(
    arguments: dict[str, Any], first: tuple[str, float], most: dict[str, float]
) -> None:
    scheduler = build_trial_scheduler("asha", arguments, "accuracy", "max", 12)
    assert (scheduler.first_rung, scheduler.stop_at) == (first, most)
    assert isinstance(scheduler.scheduler, Asha) and min(scheduler.scheduler.rungs()) == first[1]


def test_numbers_that_yaml_reads_as_text_are_understood() -> None:
    assert build_trial_scheduler("asha", {"max_compute": "2e15"}, "accuracy", "max").stop_at == {"compute": 2e15}


def test_names() -> None:
    scheduler = build_trial_scheduler("none", {}, "accuracy", "max")
    assert (scheduler.stop_at, scheduler.first_rung) == ({}, None)
    with pytest.raises(ValueError, match="takes no arguments"):
        build_trial_scheduler("none", {"a": 1}, "accuracy", "max")
    with pytest.raises(ValueError, match=r"\['asha', 'none'\]"):
        build_trial_scheduler("hyperband", {}, "accuracy", "max")
