"""What stands for one Ray actor where trainables are objects of this process: the trainable, its handle, calls that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Method:
    """Looks like a method of an actor's handle, and is called at once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Handle:
    """What a Tune trial is given as its actor."""

    def __init__(self, trainable: Any) -> None:
        self.get_auto_filled_metrics = Method(trainable.get_auto_filled_metrics)


@dataclass
class Call:
    """A call of a trainable's method that waits for its turn."""

    method: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    on_result: Callable[..., None] | None
    on_error: Callable[..., None] | None


@dataclass
class InProcessActor:
    """One trainable and the calls that wait for it, oldest first."""

    trainable: Any
    handle: Handle
    calls: deque[Call] = field(default_factory=deque)

    @property
    def ready(self) -> bool:
        """Whether its oldest call may be made now: a trainable with a method `ready` says when it can train."""
        if not self.calls:
            return False
        may_train = getattr(self.trainable, "ready", None)
        return self.calls[0].method != "train" or may_train is None or bool(may_train())
