"""What pruning of units by the loss's derivatives shares: which weights of a unit count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coppice.methods.graph.values import Element, Role
from coppice.methods.measures.per_sample import EVERY, Part, parts
from coppice.methods.method import Context
from coppice.methods.pruning.bases.units import UnitPruning


@dataclass(frozen=True)
class SensitivityPruning(UnitPruning):
    """Scores from d loss / d (a factor on the unit), which is the sum of weight times gradient over the unit's weights."""

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and not parts(context.network, element, self.places()):
            reason = "no trained weight uses its units, so that their activation cannot be told; say form: weights or group"
        return reason

    def places(self) -> tuple[Role, ...]:
        """Roles of the tensors that count."""
        return EVERY

    def parts(self, context: Context, elements: Sequence[Element]) -> dict[str, list[Part]]:
        """Where the units live, by element."""
        return {e.name: parts(context.network, e, self.places()) for e in elements}
