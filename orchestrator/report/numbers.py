"""Numbers as people read them: short, exact enough, with their unit."""

from __future__ import annotations

import math

DASH = "\N{EN DASH}"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def short(value: float | None, digits: int = 3) -> str:
    """`value` with a decimal prefix: 950, 12.3k, 4.57M; a dash for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    sign, size = ("-" if value < 0 else ""), abs(value)
    power = min(int(math.log10(size) // 3), len(_PREFIXES) - 1) if size >= 1000 else 0
    scaled = float(f"{size / 1000.0**power:.{digits}g}")
    if power and scaled >= 1000 and power + 1 < len(_PREFIXES):
        power, scaled = power + 1, scaled / 1000.0
    return f"{sign}{_significant(scaled, digits)}{_PREFIXES[power]}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    if value == int(value) and value < 10**digits:
        return str(int(value))
    decimals = max(0, digits - 1 - math.floor(math.log10(value))) if value >= 1e-4 else None
    return f"{value:.{digits}g}" if decimals is None else f"{value:.{decimals}f}"


def whole(value: float | None) -> str:
    """A count in full, in groups of three: 1,234,567; a dash for None and for what is not finite."""
    return DASH if value is None or not math.isfinite(value) else f"{round(value):,}"


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction that reads better in percent."""
    return metric.endswith("accuracy")


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value: percent for accuracies, four digits otherwise."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{100 * value:.2f} %" if is_share(metric) else f"{value:.4g}"


def metric_difference(metric: str, difference: float) -> str:
    """A difference of two values of a metric, with its sign: points for accuracies."""
    return f"{100 * difference:+.2f} points" if is_share(metric) else f"{difference:+.3g}"


def metric_name(metric: str) -> str:
    """`val_accuracy` as `validation accuracy`."""
    names = {"val": "validation", "test": "test", "train": "training"}
    first, _, rest = metric.partition("_")
    return f"{names[first]} {rest.replace('_', ' ')}" if first in names and rest else metric.replace("_", " ")


def duration(seconds: float | None) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
