"""Which end of a metric is the good one, by its name."""

from __future__ import annotations

import difflib
from typing import Literal

Mode = Literal["max", "min"]
LARGER = ("accuracy", "r2", "f1", "auc", "auroc", "precision", "recall", "iou", "dice", "bleu")
SMALLER = (
    "loss", "error", "errors", "rmse", "mse", "mae", "nll", "perplexity", "parameters", "flops", "compute", "seconds", "latency")
SPLITS = ("train_", "val_", "test_")


def known_mode(metric: str) -> Mode | None:
    """Which end of a metric is good: `min` for losses, errors and costs, `max` for accuracies; None where its name does not say.

    The last word of the name decides: `val_top5_accuracy` is an accuracy.
    """
    word = metric.rpartition("_")[2]
    return "max" if word in LARGER else "min" if word in SMALLER else None


def mode_of(metric: str, given: str | None = None) -> Mode:
    """The mode that is given, or else the one that the metric's name says.

    Raises:
        ValueError: neither.
    """
    known: Mode | None = "max" if given == "max" else "min" if given == "min" else known_mode(metric)
    if known is None:
        raise ValueError(mode_is_missing(metric))
    return known


def mode_is_missing(metric: str) -> str:
    """What to do where a metric's name does not say which end of it is good."""
    known = [split + name for name in (*LARGER, *SMALLER) for split in ("", *SPLITS)]
    near = difflib.get_close_matches(metric, known, n=1, cutoff=0.8)
    meant = f" (or did you mean {near[0]!r}?)" if near else ""
    return f"mode must be given, as it does not follow from the name {metric!r}; write mode: max or mode: min{meant}"


def contradiction(metric: str, mode: str) -> str | None:
    """Why nobody wants this end of a metric, or None; said only of metrics whose whole name, the split aside, is known."""
    name = next((metric.removeprefix(s) for s in SPLITS if metric.startswith(s)), metric)
    known = known_mode(metric)
    if name not in (*LARGER, *SMALLER) or known == mode:
        return None
    better = "larger" if known == "max" else "smaller"
    return f"must be {known} for {metric}, which is better the {better} it is, but is {mode}; write {known}"
