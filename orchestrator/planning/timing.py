"""Whether an adaptation can ever act in a training of so many epochs."""

from __future__ import annotations

from coppice.orchestrator.config.models import AdaptationSpec
from coppice.scheduler.triggers import build_trigger
from coppice.scheduler.triggers.base import Progress, Trigger
from coppice.scheduler.triggers.schedule import Never


def why_it_never_acts(spec: AdaptationSpec, epochs: int) -> str | None:
    """Why the adaptation cannot act in a training of so many epochs; None where it can, or is meant not to."""
    try:
        trigger = build_trigger(spec.when.name, spec.when.arguments)
    except Exception:  # said elsewhere; a trigger of the user's may raise anything
        return None
    if epochs == 1 or isinstance(trigger, Never) or trigger.initially:  # one epoch is a trial run, in which nothing acts
        return None
    if trigger.end > max(epochs, 1):
        instead = f"; {trigger.end:g} % are {trigger.end / 100:g}" if trigger.end <= 100 else ""
        return f"until must be at most the {epochs} epochs of the training, but is {trigger.end:g}{instead}"
    return None if can_act(trigger, epochs, spec.kind) else _never(trigger, epochs)


def can_act(trigger: Trigger, epochs: int, kind: str) -> bool:
    """Whether there is an epoch before the last one after which the clock lets the trigger act."""
    return any(trigger.possible(Progress(epoch, epochs, kind=kind)) for epoch in range(1, epochs))


def _never(trigger: Trigger, epochs: int) -> str:
    given = {name: getattr(trigger, name) for name in ("every", "patience") if hasattr(trigger, name)}
    now = Progress(0, epochs)
    span = f"from epoch {trigger.first(now)} to {trigger.last(now)}"
    shown = "".join(f", {name} {value}" for name, value in given.items())
    return (
        f"must be able to act before the last of the {epochs} epochs, but never can ({span}{shown}); "
        "make the training longer, or the numbers smaller; never is the trigger that never acts"
    )
