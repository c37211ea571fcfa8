"""All adaptations of a trial: they act in the order of the campaign file, and everything they do or leave is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.event import Event
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.verdicts import settle
from coppice.orchestrator.config.models import AdaptationSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.trial.adaptation import TrialAdaptation, build_companions

Write = Callable[..., None]
"""(type of event, **content)."""
History = Sequence[Mapping[str, float]]


def sizes(network: Network) -> dict[str, int]:
    """Number of units of each element that can be grown or pruned."""
    return {e.name: e.size for e in network.elements() if e.permissible and e.moves}


class Adaptations:
    """The adaptations of a trial.

    Attributes:
        all: in the order of the campaign file.
        changed: epochs after or in which the network was changed.
        seed_sizes: of the elements before any change.

    Args:
        specs: of the campaign file.
        epochs: of the trial.
        write: writes an event.
    """

    def __init__(self, specs: Sequence[AdaptationSpec], epochs: int, write: Write) -> None:
        self.all = [TrialAdaptation.build(i, a) for i, a in enumerate(specs)]
        self.changed: list[int] = []
        self.seed_sizes: dict[str, int] = {}
        self._epochs = epochs
        self._write = write

    def begin(self, network: Network, fresh: bool) -> None:
        """Build what methods keep beside a network; `fresh` is one that was never trained."""
        settle(network)
        self.seed_sizes = sizes(network)
        build_companions(self.all, network)
        if fresh:
            for companion in self.companions.values():
                companion.begin(network)

    @property
    def companions(self) -> dict[int, Companion]:
        """What methods keep beside the network, by the index of the first adaptation that has it."""
        companions: dict[int, Companion] = {}
        for a in self.all:
            if a.companion is not None and all(a.companion is not c for c in companions.values()):
                companions[a.index] = a.companion
        return companions

    def after_epoch(
        self, epoch: int, context: Context, followers: Sequence[Follower], history: Callable[[], History], initially: bool = False
    ) -> bool:
        """Let every adaptation that is due act; whether the network changed.

        Args:
            epoch: the last one; 0 before training.
            context: what methods look at.
            followers: what is resized with the network.
            history: metrics of all epochs, with the costs of the network as it is when this is called.
            initially: whether it is the turn of those that act before training.
        """
        changed, seen = False, history()
        candidates = [a for a in self.all if a.trigger.initially == initially]
        for adaptation in candidates:
            progress = adaptation.progress(epoch, self._epochs, seen, self.changed)
            adaptation.look(progress, context, self.seed_sizes, self._busy())
        for adaptation in candidates:
            progress = adaptation.progress(epoch, self._epochs, seen, self.changed)
            if not adaptation.due(progress):
                continue
            result = adaptation.act(progress, context, followers, self.seed_sizes, self._busy())
            changed |= any(event.accepted for event in result.events)
            self._record(epoch, adaptation, result.events, result.skipped)
            seen = history() if result.events else seen
        return changed

    def after_step(self, epoch: int, context: Context, followers: Sequence[Follower]) -> None:
        """Go on with removals that are spread over steps."""
        for adaptation in self.all:
            self._record(epoch, adaptation, *adaptation.after_step(context, followers))

    def report_unfinished(self, epoch: int) -> None:
        """Write down the removals that training was too short for."""
        for adaptation in self.all:
            for s in adaptation.shrinking:
                shrunk = f"{len(s.units)} units had shrunk for {s.done} of {s.steps} steps when training ended"
                self._record(epoch, adaptation, (), [f"{s.element}: {shrunk}; they stay"])

    def _record(self, epoch: int, adaptation: TrialAdaptation, events: Sequence[Event], skipped: Sequence[str]) -> None:
        for event in events:
            self._write("structural", epoch=epoch, adaptation=adaptation.index, **event.to_json())
        if events:
            self.changed = sorted({*self.changed, epoch})
        for reason in skipped:
            self._write("skipped", epoch=epoch, adaptation=adaptation.index, reason=reason)

    def _busy(self) -> set[str]:
        """Elements with units that are being shrunk to zero, by whichever adaptation."""
        return {s.element for adaptation in self.all for s in adaptation.shrinking}

    def state(self) -> dict[str, Any]:
        """JSON-able state for a checkpoint."""
        return {"seed_sizes": self.seed_sizes, "changed": self.changed, "adaptations": [a.state() for a in self.all]}

    def tensors(self) -> dict[str, Tensor]:
        """The companions' tensors for a checkpoint, by `index|name`."""
        companions = self.companions.items()
        return {f"{i}|{name}": tensor for i, companion in companions for name, tensor in companion.tensors().items()}

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint with this state and these tensors."""
        self.seed_sizes, self.changed = dict(state["seed_sizes"]), list(state["changed"])
        for adaptation, saved in zip(self.all, state["adaptations"], strict=True):
            adaptation.load_state(saved)
        for index, companion in self.companions.items():
            companion.load(checkpoints.under(f"{checkpoints.COMPANION}{index}|", tensors))
