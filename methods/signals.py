"""What triggers may want to know about a live network beside the metrics of its trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from methods.adapt import Rules, offers
from methods.graph.values import Element
from methods.method import Context, Method
from methods.statistics import NonFiniteStatistics

Signal = Callable[[Context, Method, Sequence[tuple[Element, int]]], Mapping[str, float]]
"""(context, the adaptation's method, elements it could change and by how many units) -> numbers by name."""


def score_signals(context: Context, method: Method, rooms: Sequence[tuple[Element, int]]) -> dict[str, float]:
    """What the method itself measures.

    `score_best` is the largest score of any unit, `score_worst` the smallest, `score_sum` the largest sum of an element's scores
    (of the units that may be added); `signal_<name>` is each of the measurement's own signals.
    """
    measurement = method.measure(context, [e for e, _ in rooms], {e.name: room for e, room in rooms})
    scores = [s for s in measurement.scores.values() if len(s)]
    found = {f"signal_{name}": value for name, value in measurement.signals.items()}
    if scores:
        found["score_best"] = max(float(s.max()) for s in scores)
        found["score_worst"] = min(float(s.min()) for s in scores)
        found["score_sum"] = max(float(s.sum()) for s in scores)
    return found


SIGNALS: dict[str, Signal] = {"scores": score_signals}


def measure_signals(context: Context, method: Method, rules: Rules, wants: Sequence[str]) -> dict[str, float]:
    """The signals called `wants`, in one mapping; empty where statistics are not finite or nothing may be changed.

    Raises:
        KeyError: an unknown signal.
    """
    found: dict[str, float] = {}
    rooms = offers(context, method, rules, [])
    for name in wants:
        try:
            found |= SIGNALS[name](context, method, rooms) if rooms else {}
        except NonFiniteStatistics:
            continue
    return found
