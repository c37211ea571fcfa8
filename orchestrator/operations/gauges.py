"""The trials of a campaign as metrics of Ray: for its dashboard, Prometheus and Grafana."""

from __future__ import annotations

import math
from collections import Counter as Counts
from collections.abc import Sequence
from typing import Any

from coppice.orchestrator.operations.status import TrialStatus

PREFIX = "ray_"
"""Ray puts this before every name."""
GAUGES = {
    "coppice_metric": "Newest value of a metric of a trial (tag metric: val_accuracy, train_loss, ...)",
    "coppice_parameters": "Parameters of a trial's network as it is",
    "coppice_flops": "FLOPs of one forward of one sample, of a trial's network as it is",
    "coppice_compute_flops": "Training FLOPs that a trial has spent",
    "coppice_epochs": "Epochs that a trial has done",
    "coppice_trials": "Trials of a campaign by state",
}
CHANGES = "coppice_changes"
"""Counter of accepted changes of networks by kind (grow, prune, ...); Prometheus adds `_total`."""
TAGS = {"coppice_metric": ("campaign", "trial", "metric"), "coppice_trials": ("campaign", "state")}
SHOWN = ("train_", "val_", "test_")
"""What the names of metrics of training begin with; the metric of the search is always shown."""


class Gauges:
    """Hands the statuses it is called with to Ray, as far as they are new.

    Args:
        campaign: its name.
        metric: of its search.
    """

    def __init__(self, campaign: str, metric: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._campaign, self._metric = campaign, metric
        usual = ("campaign", "trial")
        self._gauges: dict[str, Any] = {n: Gauge(n, about, tag_keys=TAGS.get(n, usual)) for n, about in GAUGES.items()}
        self._changes: Any = Counter(CHANGES, "Accepted changes of networks", tag_keys=(*usual, "kind"))
        self._exported: dict[str, TrialStatus] = {}
        self._counted: Counts[tuple[str, str]] = Counts()
        self._states: set[str] = set()

    def __call__(self, statuses: Sequence[TrialStatus]) -> None:
        """Hand on what is new."""
        for status in statuses:
            if self._exported.get(status.id) is not status:
                self._exported[status.id] = status
                self._tell(status)
        counts = Counts(s.state for s in statuses)
        self._states |= set(counts)
        for state in self._states:
            self._gauges["coppice_trials"].set(counts[state], {"campaign": self._campaign, "state": state})

    def _tell(self, status: TrialStatus) -> None:
        tags = {"campaign": self._campaign, "trial": status.id}
        sizes = {"parameters": status.parameters, "flops": status.flops, "compute_flops": status.compute}
        for name, value in {**sizes, "epochs": float(status.epoch)}.items():
            if value is not None and math.isfinite(value):
                self._gauges[f"coppice_{name}"].set(value, tags)
        for name, value in status.metrics.items():
            if (name.startswith(SHOWN) or name == self._metric) and math.isfinite(value):
                self._gauges["coppice_metric"].set(value, {**tags, "metric": name})
        for kind, count in status.changes.items():
            new = count - self._counted[status.id, kind]
            if new > 0:  # a trial that repeats an epoch does its changes again: they count once
                self._changes.inc(new, {**tags, "kind": kind})
                self._counted[status.id, kind] = count
