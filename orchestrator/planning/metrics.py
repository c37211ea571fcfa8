"""Whether trials report what a campaign searches by, and whether the asked end of it is the good one."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from coppice.orchestrator.config.models import SearchSpec
from coppice.orchestrator.planning.problems import Faults
from coppice.scheduler.metrics import contradiction

COSTS = ("parameters", "flops", "compute", "seconds", "train_loss")
QUALITIES = ("loss", "accuracy", "r2", "rmse")
"""What is measured on the validation data, of classes or of values."""


def reported() -> tuple[str, ...]:
    """The metrics that our own trial may report after each epoch."""
    return (*COSTS, *(f"val_{quality}" for quality in QUALITIES))


def check_metrics(search: SearchSpec, known: Collection[str]) -> Faults:
    """Whether what the search goes by is among what a trial reports."""
    for place, metric in [(("search", "metric"), search.metric), *((("search", "and", m), m) for m in search.also)]:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            yield place, f"must be one of {sorted(known)}, but is {metric!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def check_modes(search: SearchSpec) -> Faults:
    """Whether the search wants the good end of each metric, and each metric once."""
    if said := contradiction(search.metric, search.mode):
        yield ("search", "mode"), said
    for name, mode in search.also.items():
        if name == search.metric:
            yield ("search", "and", name), f"must be another metric than search.metric, but is {name}, too; leave it out"
        elif said := contradiction(name, mode):
            yield ("search", "and", name), said
