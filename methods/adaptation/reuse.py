"""A measurement together with the state of the network that it belongs to, so that it need not be taken twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coppice.methods.adaptation.consensus import agree_on_measurement, agree_on_randomness
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.network import Network
from coppice.methods.selection.values import Permissible


@dataclass(frozen=True)
class Measured:
    """What a method measured, for these elements, after this many changes of the network. Valid until a weight is trained."""

    changes: int
    permissible: tuple[Permissible, ...]
    measurement: Measurement

    @staticmethod
    def measure(context: Context, method: Method, permissible: Sequence[Permissible]) -> Measured:
        """Measure, with the same random numbers on all ranks.

        Raises:
            NonFiniteStatistics: something measured is not finite, on one of the ranks.
        """
        most = {p.element.name: p.most for p in permissible}
        agree_on_randomness(context)
        try:
            measurement, failed = method.measure(context, [p.element for p in permissible], most), None
        except NonFiniteStatistics as error:
            measurement, failed = Measurement({}), error
        if context.ranks.count(int(failed is not None)):
            raise failed or NonFiniteStatistics("what another rank measured must be finite, but is not.")
        return Measured(len(context.network.lineage), tuple(permissible), agree_on_measurement(context, measurement))

    def still_valid(self, network: Network, permissible: Sequence[Permissible]) -> bool:
        """Whether nothing has changed the network since, and the same is asked."""
        return self.changes == len(network.lineage) and self.permissible == tuple(permissible)
