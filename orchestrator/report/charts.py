"""The charts that show all trials of a campaign: accuracy against size, and learning curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from coppice.orchestrator.report.data import ReportData, TrialData
from coppice.orchestrator.report.numbers import is_share, metric_name, metric_value, plural, short, whole
from coppice.orchestrator.report.svg import Format, Frame, axes, drawing, polyline, spanning, tag, text, titled


def axis_label(metric: str) -> str:
    """The name of a metric with its unit."""
    return f"{metric_name(metric)} (%)" if is_share(metric) else metric_name(metric)


def tick_format(metric: str) -> Format:
    """How ticks of a metric's axis are written."""
    return (lambda v: f"{100 * v:.4g}") if is_share(metric) else (lambda v: f"{v:.4g}")


def describe(data: ReportData, trial: TrialData) -> str:
    """One trial in a tooltip."""
    lines = [
        trial.name,
        f"{metric_name(data.metric)} {metric_value(data.metric, trial.last(data.metric))}",
        f"{whole(trial.last('parameters'))} parameters, {short(trial.last('flops'))} FLOPs a forward",
        f"grew {plural(trial.count(True), 'time')}, shrank {plural(trial.count(False), 'time')}; {trial.state}",
    ]
    return "\n".join(lines)


def scatter(data: ReportData) -> str:
    """Metric against parameters (logarithmic), one mark a trial, with the front of trials that no other one beats."""
    shown = [t for t in data.trials if t.last(data.metric) is not None and (t.last("parameters") or 0) > 0]
    if not shown:
        return ""
    frame = Frame(1030, 400)
    x = spanning([_value(t, "parameters") for t in shown], frame.xs, log=True, margin=0.08)
    y = spanning([_value(t, data.metric) for t in shown], frame.ys, margin=0.1)
    labels = ("parameters (log scale)", axis_label(data.metric))
    parts = [axes(frame, x, y, labels=labels, formats=(short, tick_format(data.metric)))]
    front = [(x(_value(t, "parameters")), y(_value(t, data.metric))) for t in data.front]
    if len(front) > 1:
        corners = [p for (x0, y0), (x1, y1) in itertools.pairwise(front) for p in ((x0, y0), (x1, y0), (x1, y1))]
        parts.append(polyline(corners, class_="front"))
    on_front = {t.id for t in data.front}
    best = data.best
    for trial in sorted(shown, key=lambda t: (t is best, t.id in on_front)):
        at = x(_value(trial, "parameters")), y(_value(trial, data.metric))
        parts.append(_mark(data, trial, at, trial.id in on_front, trial is best))
    if best in shown:
        parts.append(_best_label(frame, best, x(_value(best, "parameters")), y(_value(best, data.metric))))
    return drawing(frame, f"{metric_name(data.metric)} against parameters of {plural(len(shown), 'trial')}", *parts)


def _value(trial: TrialData, name: str) -> float:
    value = trial.last(name)
    assert value is not None
    return value


def _mark(data: ReportData, trial: TrialData, at: tuple[float, float], front: bool, best: bool) -> str:
    tip = titled(describe(data, trial))
    cx, cy = at
    if trial.label:
        return tag("rect", tip, class_=f"mark {trial.label}", x=cx - 5.5, y=cy - 5.5, width=11.0, height=11.0)
    kind = "mark best" if best else "mark on-front" if front else "mark" if trial.state == "finished" else "mark unfinished"
    return tag("circle", tip, class_=kind, cx=cx, cy=cy, r=7.0 if best else 5.0)


def _best_label(frame: Frame, best: TrialData, cx: float, cy: float) -> str:
    right = cx < frame.width * 0.6
    place = {"x": cx + (12.0 if right else -12.0), "y": cy - 9.0 if cy > frame.top + 24 else cy + 18.0}
    return text(f"best: {best.id}", **place, class_="note", text_anchor="start" if right else "end")


def curves(data: ReportData, over: str) -> str:
    """The metric of every trial over `epoch` or over training `compute`; the best one and the compared ones stand out."""
    lines = [(t, _points(t, data.metric, over)) for t in data.trials]
    lines = [(t, p) for t, p in lines if len(p) > 1]
    if not lines:
        return ""
    frame = Frame(540, 320)
    x = spanning([a for _, p in lines for a, _ in p], frame.xs, margin=0.02, floor=0.0)
    y = spanning(_middle([v for _, p in lines for _, v in p], data.mode), frame.ys, margin=0.05)
    label = "epoch" if over == "epoch" else "training compute (FLOPs)"
    formats = (short, tick_format(data.metric))
    parts = [axes(frame, x, y, labels=(label, axis_label(data.metric)), formats=formats)]
    best = data.best
    drawn = []
    for trial, points in sorted(lines, key=lambda item: (item[0] is best, item[0].label is not None)):
        kind = "curve best" if trial is best else f"curve {trial.label}" if trial.label else "curve"
        path = [(x(a), y(min(max(v, y.low), y.high))) for a, v in points]
        drawn.append(tag("g", titled(describe(data, trial)), polyline(path, class_=kind)))
    return drawing(frame, f"{metric_name(data.metric)} over {label}", *parts, *drawn)


def _points(trial: TrialData, metric: str, over: str) -> list[tuple[float, float]]:
    if over == "epoch":
        return trial.curve(metric)
    return [(e["compute"], v) for e, (_, v) in zip((e for e in trial.epochs if metric in e), trial.curve(metric), strict=False)
            if "compute" in e]


def _middle(values: Sequence[float], mode: str) -> list[float]:
    """The values without the worst twentieth, so that a trial that went astray does not flatten all the others."""
    ordered = sorted(values)
    cut = len(ordered) // 20
    return ordered[cut:] if mode == "max" else ordered[: len(ordered) - cut]
