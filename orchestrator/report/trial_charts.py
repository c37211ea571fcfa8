"""The charts that show one trial: how its size and the width of each layer changed while it trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

from coppice.orchestrator.report.data import TrialData
from coppice.orchestrator.report.numbers import plural, short
from coppice.orchestrator.report.svg import Frame, axes, drawing, polyline, spanning, tag, titled, triangle


def widths(trial: TrialData, most: int = 48) -> str:
    """One small panel for each element of a trial: its size over the epochs, with every change marked."""
    names = list(dict.fromkeys(name for w in trial.widths for name in w))
    changed = {c.element for c in trial.changes if c.accepted}
    names = sorted(names, key=lambda n: n not in changed) if len(names) > most else names
    panels = [_panel(trial, name) for name in names[:most]]
    rest = len(names) - most
    if not panels:
        return ""
    more = f"{plural(rest, 'more element')}, most of them unchanged, in the trial's events."
    return tag("div", *panels, class_="panels") + (tag("p", more, class_="quiet") if rest > 0 else "")


def _panel(trial: TrialData, name: str) -> str:
    points = [(e["epoch"], float(w[name])) for e, w in zip(trial.epochs, trial.widths, strict=True) if name in w]
    frame = Frame(210, 104, left=34, right=8, top=10, bottom=18)
    last_epoch = max(trial.planned_epochs, trial.epochs[-1]["epoch"])
    x = spanning([1.0, max(2.0, last_epoch)], frame.xs, margin=0.03)
    reached = [float(c.size_after) for c in trial.changes if c.element == name and c.accepted and c.size_after is not None]
    y = spanning([0.0, *(v for _, v in points), *reached], frame.ys, margin=0.14, floor=0.0)
    parts = [axes(frame, x, y, labels=("", ""), formats=(_whole_only, _whole_only), most=(4, 3))]
    parts.append(polyline([(x(a), y(b)) for a, b in _steps(points)], class_="curve best"))
    for change in trial.changes:
        if change.element == name and change.accepted and change.size_after is not None:
            at = x(change.epoch), y(float(change.size_after))
            word = f"epoch {change.epoch}: {change.kind} {change.size_before} to {change.size_after}"
            parts.append(triangle(*at, change.grows, 4.6, titled(word), class_="grew" if change.grows else "shrank"))
    seed = next((c.size_before for c in trial.changes if c.element == name and c.accepted), None)
    first = int(points[0][1]) if seed is None else seed
    sizes = f"{first} \N{RIGHTWARDS ARROW} {int(points[-1][1])}" if first != int(points[-1][1]) else f"{first}"
    caption = tag("figcaption", tag("span", escape(name.removesuffix(".weight:0")), class_="name", title=name), tag("b", sizes))
    return tag("figure", caption, drawing(frame, f"size of {name} over the epochs: {sizes}", *parts), class_="panel")


def _whole_only(value: float) -> str:
    return short(value) if value == int(value) else ""


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A size is reported after its epoch: constant until then, a jump at it."""
    corners = list(points[:1])
    for (_, before), (epoch, after) in itertools.pairwise(points):
        corners += [(epoch, before), (epoch, after)]
    return corners


def size_over_time(trial: TrialData) -> str:
    """Parameters of a trial over the epochs, with every change marked."""
    points = trial.curve("parameters")
    if len(points) < 2:
        return ""
    frame = Frame(1030, 240)
    x = spanning([1.0, max(2.0, float(trial.planned_epochs), points[-1][0])], frame.xs, margin=0.02)
    y = spanning([0.0, max(v for _, v in points)], frame.ys, margin=0.1, floor=0.0)
    parts = [axes(frame, x, y, labels=("epoch", "parameters"), formats=(short, short))]
    parts.append(polyline([(x(a), y(b)) for a, b in _steps(points)], class_="curve best"))
    after = dict(points)
    for epoch in dict.fromkeys(c.epoch for c in trial.changes if c.accepted):
        for grows in (True, False):
            here = [c for c in trial.changes if c.accepted and c.epoch == epoch and c.grows == grows]
            if here and epoch in after:
                lines = [f"epoch {epoch}"] + [f"{c.kind} {c.element}: {c.size_before} to {c.size_after}" for c in here]
                place = x(epoch), y(after[epoch]) + (-9 if grows else 9)
                parts.append(triangle(*place, grows, 5.5, titled("\n".join(lines)), class_="grew" if grows else "shrank"))
    return drawing(frame, f"parameters of {trial.id} over the epochs", *parts)
