"""Whether the patterns of `elements` mean elements of the network."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from coppice.methods.network import Network
from coppice.orchestrator.planning.problems import Faults
from coppice.orchestrator.trial.adaptation import TrialAdaptation


def check_patterns(adaptations: Sequence[TrialAdaptation], network: Network) -> Faults:
    """Patterns that match nothing; left alone where an adaptation inserts layers, whose elements are not there yet."""
    if any("insertion" in a.method.levels for a in adaptations):
        return
    names = [e.name for e in network.elements()] if any(a.spec.elements for a in adaptations) else []
    for adaptation in adaptations:
        for pattern in adaptation.spec.elements:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, n=1) or names[:1]
                meant = f"; a name is {near[0]!r}, and `coppice elements` lists all" if near else ""
                place = ("adaptations", adaptation.index, adaptation.spec.kind, "elements")
                yield place, f"must match an element of the network, but {pattern!r} matches none{meant}"
