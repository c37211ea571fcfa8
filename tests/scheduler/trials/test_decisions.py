"""Decisions of trial schedulers: each is taken once, in the order of the reports, also where nobody looked at the time."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from coppice.scheduler.trials import DecidedOnce, Decision, build_trial_scheduler, replay
from coppice.scheduler.trials.decisions import PastTrial

Report = dict[str, float]
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "asha over epochs": ("asha", {"max_epochs": 8, "reduction_factor": 2}),
    "asha over compute": ("asha", {"max_compute": 30, "grace_compute": 3, "reduction_factor": 2}),
}


def scheduler(kind: str) -> DecidedOnce:
    name, arguments = SCHEDULERS[kind]
    return build_trial_scheduler(name, arguments, "accuracy", "max")


def report(epoch: int, accuracy: float, time: float = 0.0) -> Report:
    return {"epoch": float(epoch), "accuracy": accuracy, "compute": 3.0 * epoch + 20 * accuracy, "time": time}


def made(seed: int, trials: int = 6, epochs: int = 8) -> list[tuple[str, Report]]:
    """Reports of trials side by side, in the order in which they are made."""
    draws = random.Random(seed)
    waiting = {f"t{i:04d}": [report(e + 1, draws.random()) for e in range(epochs)] for i in range(trials)}
    reports = []
    while waiting:
        name = draws.choice(sorted(waiting))
        reports.append((name, {**waiting[name].pop(0), "time": float(len(reports))}))
        waiting = {n: w for n, w in waiting.items() if w}
    return reports


def live(deciding: DecidedOnce, reports: Sequence[tuple[str, Report]], epochs: int = 8) -> dict[str, int]:
    """What Tune does with the reports, for as long as each trial goes on; the epoch at which each ended."""
    ended: dict[str, int] = {}
    for name, result in reports:
        if name in ended:
            continue
        trial = PastTrial(name)
        spent = any(result[k] >= v for k, v in deciding.stop_at.items())
        stop = result["epoch"] == epochs or spent or deciding.on_trial_result(None, trial, result) == "STOP"
        if stop:
            deciding.on_trial_complete(None, trial, {**result, "finished": result["epoch"] == epochs})
            ended[name] = int(result["epoch"])
    return ended


def by_trial(reports: Sequence[tuple[str, Report]]) -> dict[str, list[Report]]:
    names = sorted({name for name, _ in reports}, reverse=True)
    return {name: [r for n, r in reports if n == name] for name in names}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_driver_that_was_away_decides_as_one_that_was_there(kind: str) -> None:
    stopped = 0
    for seed in range(40):
        reports, deciding, decided = made(seed), scheduler(kind), []
        deciding.on_decision = decided.append
        whole = live(scheduler(kind), reports)
        seen = random.Random(seed).randrange(len(reports))
        live(deciding, reports[:seen])
        away = [(n, r) for n, r in reports if n not in whole or r["epoch"] <= whole[n] or (n, r) not in reports[:seen]]
        back = scheduler(kind)
        stops = replay(back, by_trial(away), decided, finished=[n for n, e in whole.items() if e == 8])
        assert {n: stops.get(n, 8) for n in whole} == whole
        stopped += sum(epoch < 8 for epoch in whole.values())
    assert (stopped > 0) == (kind != "none")


def test_a_report_that_nobody_saw_stops_its_trial_when_it_comes_again() -> None:
    back = scheduler("asha over epochs")
    assert replay(back, {"t0000": [report(1, 0.9)], "t0001": [report(1, 0.1)]}) == {"t0001": 1}
    assert back.on_trial_result(None, PastTrial("t0001"), report(1, 0.1)) == "STOP"
    assert back.on_trial_result(None, PastTrial("t0001"), report(3, 0.1)) == "STOP"
    assert back.on_trial_result(None, PastTrial("t0000"), report(2, 0.9)) == "CONTINUE"


def test_a_trial_that_ended_by_itself_with_all_that_it_gets_is_not_stopped() -> None:
    done = {"t0000": [report(epoch, 0.9) for epoch in range(1, 9)]}
    assert replay(scheduler("asha over epochs"), done, finished=["t0000"]) == {}
    assert replay(scheduler("asha over epochs"), done) == {"t0000": 8}
    live = scheduler("asha over epochs")
    live.on_trial_complete(None, PastTrial("t0000"), {**report(8, 0.9), "finished": False})
    assert live.stopped_at("t0000") == 8


def test_the_order_of_the_reports_counts_not_that_of_the_trials() -> None:
    reports = {"t0000": [report(1, 0.1, time=2.0)], "t0001": [report(1, 0.9, time=1.0)]}
    assert replay(scheduler("asha over epochs"), reports) == {"t0000": 1}
    first = {"t0000": [report(1, 0.1, time=1.0)], "t0001": [report(1, 0.9, time=2.0)]}
    assert replay(scheduler("asha over epochs"), first) == {}


def test_what_was_decided_stands_even_if_clocks_say_otherwise() -> None:
    reports = {"t0000": [report(1, 0.1, time=2.0), report(2, 0.1, time=3.0)], "t0001": [report(1, 0.9, time=1.0)]}
    decided = [Decision("t0000", 1, "CONTINUE"), Decision("t0001", 1, "CONTINUE")]
    assert replay(scheduler("asha over epochs"), reports) == {"t0000": 1}
    assert replay(scheduler("asha over epochs"), reports, decided) == {}


def test_an_epoch_that_is_done_again_is_decided_as_before_and_counts_once() -> None:
    back = scheduler("asha over epochs")
    replay(back, {}, [Decision("t0000", 1, "CONTINUE"), Decision("t0001", 1, "STOP")])
    assert back.on_trial_result(None, PastTrial("t0001"), report(1, 0.8)) == "STOP"
    assert back.on_trial_result(None, PastTrial("t0000"), report(1, 0.1)) == "CONTINUE"
    assert back.on_trial_result(None, PastTrial("t0000"), report(1, 0.7)) == "CONTINUE"
    assert back.scheduler.rungs()[1.0] == {"t0000": 0.1, "t0001": 0.8}


def test_ends_that_stand_are_told_and_not_decided_on() -> None:
    back = scheduler("asha over epochs")
    reports = {"t0000": [report(1, 0.9)], "t0001": [report(1, 0.1), report(2, 0.2)]}
    assert replay(back, reports, finished=["t0001"], settled=["t0001"]) == {}
    assert back.scheduler.rungs()[1.0] == {"t0000": 0.9, "t0001": 0.1}


def test_comparisons_are_left_alone() -> None:
    deciding = scheduler("asha over epochs")
    deciding.on_trial_result(None, PastTrial("good"), report(1, 0.9))
    static = PastTrial("static", {"label": "static"})
    assert deciding.on_trial_result(None, static, report(1, 0.1)) == "CONTINUE"
    deciding.on_trial_complete(None, static, report(8, 0.1))
    assert "static" not in deciding.scheduler.rungs()[1.0]


def test_a_trial_that_failed_may_go_on_later() -> None:
    deciding = scheduler("asha over epochs")
    deciding.on_trial_complete(None, PastTrial("t0000"), {"epoch": 0.0, "accuracy": -1e30})
    assert deciding.on_trial_result(None, PastTrial("t0000"), report(1, 0.9)) == "CONTINUE"
