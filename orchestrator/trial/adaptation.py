"""An adaptation of a running trial: its trigger, selection and method, and what it has done so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from coppice.methods.adaptation.adapt import Adaptation, AdaptResult, adapt
from coppice.methods.adaptation.candidates import Scope, headroom, permissible_elements
from coppice.methods.adaptation.reuse import Measured
from coppice.methods.adaptation.signals import look
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.companion import Companion
from coppice.methods.event import Event
from coppice.methods.method import Context, Method
from coppice.methods.network import Network
from coppice.methods.plan import Plan, PrunePlan
from coppice.methods.selection import Limit, Selection
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.values import Permissible
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.shrink import Shrinking, advance
from coppice.orchestrator.config.models import AdaptationSpec
from coppice.scheduler.triggers import build_trigger
from coppice.scheduler.triggers.base import Progress, Trigger

SHRINKING = ("channel", "head", "group")
"""Levels whose units can be shrunk to zero over steps."""


def build_companions(adaptations: Sequence[TrialAdaptation], network: Network) -> None:
    """Give every adaptation what its method keeps beside the network; one and the same where methods share it.

    Raises:
        ValueError: methods that share a companion have different parameters.
    """
    first: dict[str, TrialAdaptation] = {}
    for adaptation in adaptations:
        method, key = adaptation.method, adaptation.method.companion_key
        holder = adaptation if key is None else first.setdefault(key, adaptation)
        if holder is adaptation:
            adaptation.companion = method.companion(network)
        elif vars(holder.method) != vars(method):
            raise ValueError(
                f"adaptations {holder.index} and {adaptation.index} share one trained state ({key}) and must have the same "
                f"parameters, but have {vars(holder.method)} and {vars(method)}."
            )
        else:
            adaptation.companion = holder.companion


@dataclass
class TrialAdaptation:
    """One entry of the campaign's `adaptations`, live.

    Attributes:
        index: its place in the campaign file.
        acted: epochs after which it acted.
        shrinking: removals that are being shrunk to zero, to be carried out when they are done.
        signals: after each epoch, what its trigger asks for, by name.
        companion: what its method keeps beside the network; None for most.
    """

    index: int
    spec: AdaptationSpec
    trigger: Trigger
    selection: Selection
    method: Method
    acted: list[int] = field(default_factory=list)
    shrinking: list[Shrinking] = field(default_factory=list)
    signals: list[dict[str, float]] = field(default_factory=list)
    companion: Companion | None = None
    _measured: Measured | None = None

    @staticmethod
    def build(index: int, spec: AdaptationSpec) -> TrialAdaptation:
        """Look up the names in the tables and build the parts.

        Raises:
            ValueError: an unknown name, an argument out of range, or an amount that the trigger cannot work with.
        """
        trigger, amount = build_trigger(spec.when.name, spec.when.arguments), Amount.read(spec.amount)
        refusal = trigger.refuses(amount.value, amount.of)
        if refusal or spec.kind not in trigger.kinds:
            raise ValueError(refusal or f"{spec.when.name} is for {' and '.join(trigger.kinds)} only.")
        arguments = dict(spec.how.arguments)
        if spec.removal.name in ("absorb", "merge"):
            arguments["removal"] = spec.removal.name
        method = build(spec.kind, spec.how.name, arguments)
        if spec.removal.name == "shrink" and getattr(method, "removal", "immediate") != "immediate":
            raise ValueError(f"units that shrink to zero cannot be removed by {method.removal} as well.")
        if spec.removal.name == "shrink" and not set(method.levels) & set(SHRINKING):
            raise ValueError(f"only {', '.join(SHRINKING)} can shrink to zero, but it acts on {', '.join(method.levels)}.")
        return TrialAdaptation(index, spec, trigger, build("selection", spec.where.name, spec.where.arguments), method)

    def progress(
        self, epoch: int, epochs: int, history: Sequence[Mapping[str, float]], changed: Sequence[int] = ()
    ) -> Progress:
        """What its trigger decides by, after `epoch` of `epochs`."""
        return Progress(
            epoch, epochs, tuple(history), tuple(self.acted), tuple(changed), tuple(self.signals), self.spec.kind
        )

    def look(self, progress: Progress, context: Context, seed_sizes: Mapping[str, int], busy: Collection[str] = ()) -> None:
        """Measure what the trigger wants to know after this epoch, where it may act or remembers it."""
        if not self.trigger.wants:
            return
        signals: dict[str, float] = {}
        self._measured = None
        if self.trigger.remembers or (progress.epoch < progress.epochs and self.trigger.awake(progress)):
            context = replace(context, companion=self.companion)
            signals, self._measured = look(context, self.method, self._scope(seed_sizes, busy), self.trigger.wants)
        self.signals.append(signals)

    def due(self, progress: Progress) -> bool:
        """Whether it acts after this epoch. Never after the last one: what it changed would not be trained."""
        return progress.epoch < progress.epochs and self.trigger.fires(progress)

    def act(
        self,
        progress: Progress,
        context: Context,
        followers: Sequence[Follower],
        seed_sizes: Mapping[str, int],
        busy: Collection[str] = (),
    ) -> AdaptResult:
        """Measure, choose, plan and apply; elements that are `busy` (being shrunk, by any adaptation) are left alone."""
        written = Amount.read(self.spec.amount)
        amount = written.scaled(self.trigger.amount(progress, written.value))
        self.acted.append(progress.epoch)
        if amount.value <= 0 and amount.of in ("now", "seed"):
            return AdaptResult((), (f"the trigger {self.spec.when.name} asks for nothing yet",))
        defer = self._defer if self.spec.removal.name == "shrink" else None
        context = replace(context, companion=self.companion)
        act = Adaptation(self.method, self.selection, amount, self._scope(seed_sizes, busy))
        measured, self._measured = self._measured, None
        return adapt(context, act, followers, turn=len(self.acted) - 1, defer=defer, measured=measured)

    def candidates(self, context: Context, seed_sizes: Mapping[str, int]) -> tuple[list[Permissible], list[str]]:
        """What it may change in the network as it is, and for what it may not, why not."""
        return permissible_elements(replace(context, companion=self.companion), self.method, self._scope(seed_sizes, ()))

    def limited(self, context: Context) -> str:
        """The limit of the whole network that leaves this adaptation nothing to do on it as it is; empty where none does."""
        left, limit = headroom(context, self.method, self._scope({}, ())), self.spec.limit
        for name, room, most in (("parameters", left.parameters, limit.parameters), ("flops", left.flops, limit.flops)):
            if room == 0.0:
                beyond = "at or above" if self.spec.kind == "grow" else "at or below"
                return f"the network is {beyond} its limit of {most:g} {name}"
        return ""

    def _scope(self, seed_sizes: Mapping[str, int], busy: Collection[str]) -> Scope:
        spec = self.spec
        return Scope(
            elements=spec.elements,
            exclude={*busy, *(s.element for s in self.shrinking)},
            limit=Limit(spec.limit.parameters, spec.limit.flops),
            width=spec.limit.width,
            minimum=spec.minimum,
            seed_sizes=seed_sizes,
        )

    def _defer(self, plan: Plan) -> bool:
        if not isinstance(plan, PrunePlan):
            return False
        steps = int(self.spec.removal.arguments.get("steps", 100))
        self.shrinking.append(Shrinking(plan.element, plan.units, steps, 0))
        return True

    def after_step(self, context: Context, followers: Sequence[Follower]) -> tuple[list[Event], list[str]]:
        """Shrink what is to be removed by one step; remove what has reached zero.

        Returns:
            Events of what was removed, and reasons for what cannot be removed any more.
        """
        events, obsolete, remaining = [], [], []
        known = {e.name for e in context.network.elements()} if self.shrinking else set()
        for shrinking in self.shrinking:
            if shrinking.element not in known:
                reason = "is gone: another change took it away while its units were being shrunk to zero"
                obsolete.append(f"{shrinking.element} {reason}")
                continue
            moved = advance(context.network, shrinking)
            if moved.done < moved.steps:
                remaining.append(moved)
            else:
                events.append(apply(context.network, PrunePlan(moved.element, moved.units), followers))
        self.shrinking = remaining
        return events, obsolete

    def state(self) -> dict[str, Any]:
        """JSON-able state for a checkpoint."""
        return {"acted": self.acted, "shrinking": [asdict(s) for s in self.shrinking], "signals": self.signals}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` has returned."""
        self.acted = list(state["acted"])
        self.signals = list(state["signals"])
        self.shrinking = [Shrinking(**{**s, "units": tuple(s["units"])}) for s in state["shrinking"]]
