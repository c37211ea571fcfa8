"""What every trigger must do, whatever it watches: subclass the suite and say in `make` what is tested."""

import copy
import dataclasses
import itertools
import json
from typing import Any

import pytest

from coppice.scheduler.triggers import Progress, Trigger, build_trigger

EPOCHS = 20
SIGNALS: dict[str, dict[str, float]] = {
    "scores": {"score_best": 1.0, "score_worst": 0.1, "score_sum": 3.0, "signal_eta": 2.0, "advised": 4.0, "offered": 2.0},
    "effective_rank": {"rank_best": 0.9, "rank_mean": 0.8},
    "train_accuracy": {"train_accuracy": 0.5},
}
"""What is measured in a flat trial, by the name that triggers want it under."""


def flat_history(epochs: int) -> tuple[dict[str, float], ...]:
    """A trial that does not get any better and does not change; each epoch computes as much."""
    same = {"val_loss": 1.0, "val_accuracy": 0.5, "train_loss": 1.0, "parameters": 1000.0, "flops": 2000.0}
    return tuple({**same, "compute": 1e6 * (epoch + 1)} for epoch in range(epochs))


def flat_signals(trigger: Trigger, epochs: int) -> tuple[dict[str, float], ...]:
    """What the trigger wants to know in a flat trial."""
    if not trigger.wants:
        return ()
    return tuple({"another": 0.0, **{k: v for name in trigger.wants for k, v in SIGNALS[name].items()}} for _ in range(epochs))


def flat(trigger: Trigger, epoch: int, epochs: int = EPOCHS, acted: tuple[int, ...] = (), **more: Any) -> Progress:
    """A flat trial after this epoch."""
    known = {"history": flat_history(epoch), "signals": flat_signals(trigger, epoch), **more}
    return Progress(epoch, epochs, acted=acted, **known)


def acts(trigger: Trigger, epochs: int = EPOCHS, changed: tuple[int, ...] = ()) -> list[int]:
    """Epochs after which the trigger acts in a flat trial, told of its own acts and of changes by others."""
    acted: list[int] = []
    for epoch in range(1, epochs + 1):
        known = tuple(sorted({*acted, *(c for c in changed if c <= epoch)}))
        if trigger.fires(flat(trigger, epoch, epochs, tuple(acted), changed=known)):
            acted.append(epoch)
    return acted


class TriggerContract:
    """Subclass it and say in `make` the name and arguments of a trigger that acts in a flat trial.

    `watches` are the metrics and signals that the trigger cannot do without.
    """

    watches: tuple[str, ...] = ()

    def make(self) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the trigger under test, as in a campaign file: override this."""
        raise NotImplementedError(f"{type(self).__name__} must have a method `make` that returns a name and arguments.")

    @pytest.fixture
    def named(self) -> tuple[str, dict[str, Any]]:
        """What `make` returns."""
        return self.make()

    def test_is_a_pure_function(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        progress = flat(trigger, 7, acted=(2,))
        before = copy.deepcopy(progress)
        assert [trigger.fires(progress) for _ in range(3)] == [trigger.fires(progress)] * 3
        assert trigger.amount(progress, 0.5) == trigger.amount(progress, 0.5)
        assert progress == before
        assert acts(build_trigger(*named)) == acts(trigger)

    def test_is_frozen_and_comes_back_from_json(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        name, arguments = json.loads(json.dumps(named))
        assert build_trigger(name, arguments) == trigger
        field = dataclasses.fields(trigger)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(trigger, field, 3)

    def test_keeps_to_its_span(self, named: tuple[str, dict[str, Any]]) -> None:
        name, arguments = named
        inside = acts(build_trigger(name, {**arguments, "from": 6, "until": 12}))
        assert inside and min(inside) >= 6 and max(inside) <= 12
        halves = acts(build_trigger(name, {**arguments, "from": 0.5, "until": 1.0}))
        assert halves and min(halves) >= EPOCHS // 2

    def test_rests_after_an_act(self, named: tuple[str, dict[str, Any]]) -> None:
        name, arguments = named
        rested = acts(build_trigger(name, {**arguments, "cooldown": 5}))
        assert len(rested) >= 2
        assert all(b - a > 5 for a, b in itertools.pairwise(rested))

    def test_rests_after_a_change_by_any_adaptation(self, named: tuple[str, dict[str, Any]]) -> None:
        name, arguments = named
        changed = (5, 6, 11)
        assert set(range(5, 16)) & set(acts(build_trigger(name, {**arguments, "until": 1.0}), changed=changed))
        rested = acts(build_trigger(name, {**arguments, "until": 1.0, "refractory": 4}), changed=changed)
        assert rested and not {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & set(rested)
        assert all(b - a > 4 for a, b in itertools.pairwise(rested))

    def test_an_act_asks_for_at_most_the_amount(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        for epoch in acts(trigger):
            assert 0 <= trigger.amount(flat(trigger, epoch), 0.5) <= 0.5

    def test_what_is_not_reported_is_an_error_that_says_what_is(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        for name in self.watches:
            progress = flat(trigger, 15)
            history = tuple({k: v for k, v in h.items() if k != name} for h in progress.history)
            signals = tuple({k: v for k, v in s.items() if k != name} for s in progress.signals)
            known = sorted({**history[0], **(signals[0] if signals else {})})
            with pytest.raises(KeyError, match=name) as caught:
                trigger.fires(dataclasses.replace(progress, history=history, signals=signals))
            assert any(other in str(caught.value) for other in known if other != name)

    def test_does_not_act_where_nothing_was_measured(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        if not trigger.wants:
            pytest.skip("measures nothing")
        signals = (*flat_signals(trigger, 8), {})
        assert trigger.fires(flat(trigger, 9)) and not trigger.fires(flat(trigger, 9, signals=signals))
        again = (*({} for _ in range(8)), flat_signals(trigger, 1)[0])
        assert trigger.fires(flat(trigger, 9, signals=again))

    def test_every_parameter_has_help_and_a_default_in_its_range(self, named: tuple[str, dict[str, Any]]) -> None:
        name, _ = named
        for field in dataclasses.fields(build_trigger(*named)):
            assert field.metadata["parameter"]["help"]
            build_trigger(name, {field.name: field.default})

    def test_says_what_it_is(self, named: tuple[str, dict[str, Any]]) -> None:
        trigger = build_trigger(*named)
        assert trigger.why and trigger.paper and type(trigger).__doc__
