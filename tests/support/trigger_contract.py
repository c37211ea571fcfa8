"""What every trigger must do, whatever it watches."""

import copy
import dataclasses
import itertools
import json

import pytest

from scheduler.triggers import Progress, Trigger, build_trigger

EPOCHS = 20


def flat_history(epochs: int) -> tuple[dict[str, float], ...]:
    """A trial that does not get any better."""
    return tuple({"val_loss": 1.0, "val_accuracy": 0.5, "train_loss": 1.0} for _ in range(epochs))


def acts(trigger: Trigger, epochs: int = EPOCHS) -> list[int]:
    """Epochs after which the trigger acts in a flat trial, told of its own acts."""
    acted: list[int] = []
    for epoch in range(1, epochs + 1):
        if trigger.fires(Progress(epoch, epochs, flat_history(epoch), tuple(acted))):
            acted.append(epoch)
    return acted


class TriggerContract:
    """Subclass it with a fixture `arguments` (name, arguments) of a trigger that acts in a flat trial."""

    @pytest.fixture
    def named(self) -> tuple[str, dict]:
        raise AssertionError("override this fixture")

    def test_is_a_pure_function(self, named: tuple[str, dict]) -> None:
        trigger = build_trigger(*named)
        progress = Progress(7, EPOCHS, flat_history(7), (2,))
        before = copy.deepcopy(progress)
        assert [trigger.fires(progress) for _ in range(3)] == [trigger.fires(progress)] * 3
        assert progress == before
        assert acts(build_trigger(*named)) == acts(trigger)

    def test_is_frozen_and_comes_back_from_json(self, named: tuple[str, dict]) -> None:
        trigger = build_trigger(*named)
        name, arguments = json.loads(json.dumps(named))
        assert build_trigger(name, arguments) == trigger
        field = dataclasses.fields(trigger)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(trigger, field, 3)

    def test_keeps_to_its_span(self, named: tuple[str, dict]) -> None:
        name, arguments = named
        inside = acts(build_trigger(name, {**arguments, "from": 6, "until": 12}))
        assert inside and min(inside) >= 6 and max(inside) <= 12
        halves = acts(build_trigger(name, {**arguments, "from": 0.5, "until": 1.0}))
        assert halves and min(halves) >= EPOCHS // 2

    def test_rests_after_an_act(self, named: tuple[str, dict]) -> None:
        name, arguments = named
        rested = acts(build_trigger(name, {**arguments, "cooldown": 5}))
        assert len(rested) >= 2
        assert all(b - a > 5 for a, b in itertools.pairwise(rested))

    def test_every_parameter_has_help(self, named: tuple[str, dict]) -> None:
        for field in dataclasses.fields(build_trigger(*named)):
            assert field.metadata["parameter"]["help"]
