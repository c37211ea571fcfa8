"""The table of triggers: what is wrong is said, users bring their own, and each has its suite."""

import pytest

from coppice.scheduler.triggers import TRIGGERS, Progress, build_trigger
from coppice.testing.trigger import TriggerContract, acts
from tests.scheduler.triggers import test_resources, test_schedules, test_signals


def test_never_acts_never() -> None:
    assert acts(build_trigger("never", {})) == []


def test_initial_acts_before_the_first_epoch_only() -> None:
    trigger = build_trigger("initial", {})
    assert trigger.initially and trigger.fires(Progress(0, 20)) and acts(trigger) == []


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
        ("coppice.testing.trigger:acts", {}, "subclass"),
    ],
)
def test_bad_names_and_arguments_are_explained(name: str, arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_trigger(name, arguments)


def test_own_triggers_are_found_by_reference() -> None:
    assert build_trigger("coppice.scheduler.triggers.schedule:Periodic", {"every": 2}) == build_trigger("periodic", {"every": 2})


def test_every_trigger_of_the_table_is_tested() -> None:
    modules = (test_schedules, test_signals, test_resources)
    suites = [s for m in modules for s in vars(m).values() if isinstance(s, type) and issubclass(s, TriggerContract)]
    tested = {name for suite in suites for name in TRIGGERS if suite.__name__ == f"Test{name.title()}"}
    assert set(TRIGGERS) == tested | {"never", "initial"}
    assert all(trigger.why and trigger.paper for trigger in TRIGGERS.values())
