"""A measurement together with the state of the network that it belongs to, so that it need not be taken twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coppice.methods.adaptation.consensus import same_draws, same_measurement
from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.network import Network

Rooms = Sequence[tuple[Element, int]]
"""Elements that may be changed, each with the number of units that may be added or removed."""


@dataclass(frozen=True)
class Measured:
    """What a method measured, for these rooms, after this many changes of the network. Holds as long as no weight is trained."""

    changes: int
    rooms: tuple[tuple[Element, int], ...]
    measurement: Measurement

    @staticmethod
    def take(context: Context, method: Method, rooms: Rooms) -> Measured:
        """Measure, with the same random numbers on all ranks.

        Raises:
            NonFiniteStatistics: something measured is not finite, on one of the ranks.
        """
        same_draws(context)
        try:
            found, failed = method.measure(context, [e for e, _ in rooms], {e.name: room for e, room in rooms}), None
        except NonFiniteStatistics as error:
            found, failed = Measurement({}), error
        if context.ranks.count(int(failed is not None)):
            raise failed or NonFiniteStatistics("what another rank measured must be finite, but is not.")
        return Measured(len(context.network.lineage), tuple(rooms), same_measurement(context, found))

    def holds(self, network: Network, rooms: Rooms) -> bool:
        """Whether nothing has changed the network since, and the same is asked."""
        return self.changes == len(network.lineage) and self.rooms == tuple(rooms)
