"""Trials as objects of the driver: Ray Tune's own controller, without a process for each trial.

A Ray actor for each trial costs about 110 MB, which is too much where trials run elsewhere and are only watched from here. Tune's
controller reaches its actors through one object, the actor manager; this one keeps plain objects in their place. Everything else
(searchers, trial schedulers, callbacks, stoppers) is Tune's own, so that all placements make the same decisions.

It relies on internals of Ray: the supported range is pinned, and a test compares every decision with that of real actors.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.tune.tune as entry
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution.tune_controller import TuneController

from coppice.orchestrator.placement.ray_inprocess_actor import Call, Handle, InProcessActor

Event = Callable[[], None]


class _NothingToResolve:
    """Ray's actors save asynchronously; here a saved result is there at once."""

    def resolve_future(self, future: Any) -> None:
        """Do nothing: there is no future."""


class InProcessActorManager:
    """What Tune's controller expects of a RayActorManager, with objects of this process.

    A trainable may have a method `ready`; until it returns True, `train` is not called, so that nothing ever blocks.

    Args:
        most: how many trainables may exist at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending: deque[tuple[TrackedActor, Any, dict[str, Any]]] = deque()
        self._actors: dict[TrackedActor, InProcessActor] = {}
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Handle, None]] = {}
        self._events: deque[Event] = deque()
        self._actor_task_events = _NothingToResolve()

    @property
    def num_live_actors(self) -> int:
        """How many trainables exist."""
        return len(self._actors)

    @property
    def num_pending_actors(self) -> int:
        """How many trainables were requested and do not exist yet."""
        return len(self._pending)

    @property
    def num_total_actors(self) -> int:
        """Trainables that exist or were requested."""
        return len(self._actors) + len(self._pending)

    @property
    def num_actor_tasks(self) -> int:
        """Calls that wait for their turn, of all trainables."""
        return sum(len(a.calls) for a in self._actors.values())

    def get_live_actors_resources(self) -> list[Any]:
        """Objects take no resources of Ray."""
        return []

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether its trainable exists."""
        return tracked_actor in self._actors

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """What fails in an object is reported as the failure of its call."""
        return False

    def add_actor(
        self, cls: Any, resource_request: Any, kwargs: dict[str, Any] | None = None, *,
        on_start: Any = None, on_stop: Any = None, on_error: Any = None,
    ) -> TrackedActor:  # fmt: skip
        """Ask for a trainable."""
        actor = TrackedActor(uuid.uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        self._pending.append((actor, cls.__ray_metadata__.modified_class, kwargs or {}))
        return actor

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """Let go of a trainable; whether it existed."""
        self._pending = deque(p for p in self._pending if p[0] is not tracked_actor)
        self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)
        if self._actors.pop(tracked_actor, None) is None:
            return False
        self._events.append(lambda: _call(tracked_actor._on_stop, tracked_actor))
        return True

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Forget the calls that wait for a trainable."""
        if tracked_actor in self._actors:
            self._actors[tracked_actor].calls.clear()

    def schedule_actor_task(
        self, tracked_actor: TrackedActor, method_name: str, args: Any = None, kwargs: Any = None,
        on_result: Any = None, on_error: Any = None, _return_future: bool = False,
    ) -> Any:  # fmt: skip
        """Call a method: `stop` and what Tune waits for at once, others in their turn."""
        actor = self._actors.get(tracked_actor)
        if actor is None:
            return None
        call = Call(method_name, tuple(args or ()), dict(kwargs or {}), on_result, on_error)
        if method_name == "stop":
            actor.trainable.stop()
            return None
        if method_name == "save":  # Tune may ask for the future and resolve it, so the result must exist now
            saved = actor.trainable.save(*call.arguments, **call.named)
            if on_result is not None:
                self._events.append(lambda: on_result(tracked_actor, saved))
            return ray.put(saved) if _return_future else None
        actor.calls.append(call)
        return None

    def next(self, timeout: float | None = None) -> bool:
        """Handle one event, waiting for one for at most `timeout` seconds; whether there was one."""
        end = time.monotonic() + (timeout or 0.0)
        while not self._one():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.02))
        return True

    def _one(self) -> bool:
        if self._events:
            self._events.popleft()()
            return True
        if self._pending and len(self._actors) < self._most:
            self._make(*self._pending.popleft())
            return True
        for actor, in_process in self._actors.items():
            if in_process.ready:
                self._actors[actor] = self._actors.pop(actor)  # to the end: everyone gets a turn
                self._run(actor, in_process)
                return True
        return False

    def _make(self, actor: TrackedActor, cls: Any, arguments: dict[str, Any]) -> None:
        try:
            trainable = cls(**arguments)
        except Exception as error:  # as when an actor cannot be made: this trial fails, the campaign goes on
            _call(actor._on_error, actor, error)
            return
        self._actors[actor] = InProcessActor(trainable, handle := Handle(trainable))
        self._live_actors_to_ray_actors_resources[actor] = (handle, None)
        _call(actor._on_start, actor)

    def _run(self, actor: TrackedActor, in_process: InProcessActor) -> None:
        call = in_process.calls.popleft()
        try:
            result = getattr(in_process.trainable, call.method)(*call.arguments, **call.named)
        except Exception as error:  # as when a call of an actor fails
            _call(call.on_error, actor, ray.exceptions.RayTaskError(call.method, repr(error), error))
            return
        _call(call.on_result, actor, result)

    def cleanup(self) -> None:
        """Let go of everything."""
        self._pending.clear()
        self._actors.clear()
        self._live_actors_to_ray_actors_resources.clear()
        self._events.clear()


def _call(function: Callable[..., None] | None, *arguments: Any) -> None:
    if function is not None:
        function(*arguments)


@contextlib.contextmanager
def in_process_trials(most: int) -> Iterator[None]:
    """Within: `tune.run` keeps its trainables in this process, at most `most` at a time."""

    class Controller(TuneController):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._actor_manager = InProcessActorManager(most)

    before = entry.TuneController
    entry.TuneController = Controller
    try:
        yield
    finally:
        entry.TuneController = before
