"""An adaptation of a running trial: its trigger, selection and method, and what it has done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from methods.adapt import AdaptResult, Rules, adapt
from methods.apply import apply
from methods.catalog import build
from methods.event import Event
from methods.method import Context, Method
from methods.plan import Plan, PrunePlan
from methods.selection import Limit, Selection
from methods.surgery.changes import Follower
from methods.surgery.shrink import Shrinking, advance
from orchestrator.config import AdaptationSpec
from scheduler.triggers import build_trigger
from scheduler.triggers.base import Progress, Trigger


@dataclass
class Adaptation:
    """One entry of the campaign's `adaptations`, live.

    Attributes:
        index: its place in the campaign file.
        acted: epochs after which it acted.
        shrinking: removals that are being shrunk to zero, to be carried out when they are done.
    """

    index: int
    spec: AdaptationSpec
    trigger: Trigger
    selection: Selection
    method: Method
    acted: list[int] = field(default_factory=list)
    shrinking: list[Shrinking] = field(default_factory=list)

    @staticmethod
    def build(index: int, spec: AdaptationSpec) -> Adaptation:
        """Look up the names in the tables and build the parts."""
        method = dict(spec.how.arguments)
        if spec.removal.name == "absorb":
            method["removal"] = "absorb"
        return Adaptation(
            index,
            spec,
            build_trigger(spec.when.name, spec.when.arguments),
            build("selection", spec.where.name, spec.where.arguments),
            build(spec.kind, spec.how.name, method),
        )

    def due(self, epoch: int, epochs: int, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether it acts after this epoch. Never after the last one: what it changed would not be trained."""
        return epoch < epochs and self.trigger.fires(Progress(epoch, epochs, tuple(history), tuple(self.acted)))

    def act(self, epoch: int, context: Context, followers: Sequence[Follower], seed_sizes: Mapping[str, int]) -> AdaptResult:
        """Measure, choose, plan and apply."""
        spec = self.spec
        rules = Rules(
            elements=spec.elements,
            exclude={s.element for s in self.shrinking},
            limit=Limit(spec.limit.parameters, spec.limit.flops),
            width=spec.limit.width,
            minimum=spec.minimum,
            seed_sizes=seed_sizes,
        )
        defer = self._defer if spec.removal.name == "shrink" else None
        result = adapt(context, self.method, self.selection, spec.amount, rules, followers, len(self.acted), defer)
        self.acted.append(epoch)
        return result

    def _defer(self, plan: Plan) -> bool:
        if not isinstance(plan, PrunePlan):
            return False
        steps = int(self.spec.removal.arguments.get("steps", 100))
        self.shrinking.append(Shrinking(plan.element, plan.units, steps, 0))
        return True

    def after_step(self, context: Context, followers: Sequence[Follower]) -> list[Event]:
        """Shrink what is to be removed by one step; remove what has reached zero."""
        events = []
        remaining = []
        for shrinking in self.shrinking:
            moved = advance(context.network, shrinking)
            if moved.done < moved.steps:
                remaining.append(moved)
            else:
                events.append(apply(context.network, PrunePlan(moved.element, moved.units), followers))
        self.shrinking = remaining
        return events

    def state(self) -> dict[str, Any]:
        """JSON-able state for a checkpoint."""
        return {"acted": self.acted, "shrinking": [asdict(s) for s in self.shrinking]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.acted = list(state["acted"])
        self.shrinking = [Shrinking(**{**s, "units": tuple(s["units"])}) for s in state["shrinking"]]
