"""The tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from coppice.orchestrator.report.data import OptionRow, ReportData, TrialData
from coppice.orchestrator.report.numbers import duration, metric_difference, metric_name, metric_value, short, whole
from coppice.orchestrator.report.svg import tag


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it is sorted by (None: its text), and whether it is a number."""

    text: str
    value: float | str | None = None
    number: bool = False
    class_: str | None = None


def number_cell(text: str, value: float | None) -> Cell:
    """A cell with a number; sorted last where there is none."""
    return Cell(text, "" if value is None else value, True)


def table(heads: Sequence[tuple[str, bool]], rows: Sequence[tuple[Sequence[Cell], str | None]], sortable: bool = False) -> str:
    """A table.

    Args:
        heads: heading and whether its column holds numbers.
        rows: cells of each row, and its class.
        sortable: whether a click on a heading sorts.
    """
    head = "".join(_head(name, number, sortable) for name, number in heads)
    body = "".join(tag("tr", *(_cell(c) for c in cells), class_=class_) for cells, class_ in rows)
    whole_table = tag("table", tag("thead", tag("tr", head)), tag("tbody", body or " "), class_="sortable" if sortable else None)
    return tag("div", whole_table, class_="scroll")


def _head(name: str, number: bool, sortable: bool) -> str:
    label = tag("button", escape(name), type="button") if sortable else escape(name) or " "
    first = ("falling" if number else "rising") if sortable else None
    return tag("th", label, class_="number" if number else None, scope="col", data_first=first)


def _cell(cell: Cell) -> str:
    value = repr(cell.value) if isinstance(cell.value, float) else cell.value
    class_ = " ".join(c for c in ("number" if cell.number else "", cell.class_ or "") if c) or None
    return tag("td", escape(cell.text) or " ", class_=class_, data_value=value)


def trials_table(data: ReportData) -> str:
    """All trials; the best one is marked."""
    metric = data.metric
    numbers = (metric_name(metric), "parameters", "FLOPs a forward", "training compute", "grew", "shrank", "epochs", "time")
    heads = [("trial", False), *((name, True) for name in numbers), ("state", False)]
    best = data.best
    rows = []
    for t in sorted(data.trials, key=lambda t: _rank(data, t)):
        cells = [
            Cell(t.name),
            number_cell(metric_value(metric, t.last(metric)), t.last(metric)),
            number_cell(whole(t.last("parameters")), t.last("parameters")),
            number_cell(short(t.last("flops")), t.last("flops")),
            number_cell(short(t.last("compute")), t.last("compute")),
            number_cell(str(t.count(True)), float(t.count(True))),
            number_cell(str(t.count(False)), float(t.count(False))),
            number_cell(f"{len(t.epochs)}" + (f" of {t.planned_epochs}" if t.planned_epochs else ""), float(len(t.epochs))),
            number_cell(duration(t.seconds), t.seconds),
            Cell(t.state, class_=f"state-{t.state}" if t.state.isalpha() else None),
        ]
        rows.append((cells, "best" if t is best else None))
    return table(heads, rows, sortable=True)


def _rank(data: ReportData, trial: TrialData) -> tuple[bool, float]:
    value = trial.last(data.metric)
    return value is None, 0.0 if value is None else -value if data.mode == "max" else value


def final_size(best: TrialData, static: TrialData) -> str:
    """Which size of the best network the static one has: its last one, unless that was not to be had."""
    epoch, last = static.compared_epoch, best.last("epoch")
    return "the same final size" if epoch is None or last is None or epoch == last else f"the size after epoch {epoch}"


def _name(best: TrialData, trial: TrialData, outdated: bool) -> str:
    owner = trial.compared_with or "an earlier best"
    if trial.label == "static":
        size = final_size(best, trial).removeprefix("the ")
        return f"static, final size of {owner}, from scratch" if outdated else f"static, {size}, from scratch"
    of = f", with the settings of {owner}" if outdated else ""
    return f"big, never changed{of}" if trial.label == "big" else f"grown and pruned ({trial.id})"


def comparison_table(data: ReportData) -> str:
    """The best network beside the compared ones; empty where there are none."""
    best = data.best
    compared = [*(t for t in (data.labelled("static"), data.labelled("big")) if t is not None), *data.outdated]
    if best is None or not compared:
        return ""
    test = metric_name(_test(data.metric)) if best.last(_test(data.metric)) is not None else None
    heads = [("network", False), (metric_name(data.metric), True), ("against the best", True)]
    heads += [(test, True)] if test else []
    heads += [("parameters", True), ("FLOPs a forward", True), ("training compute", True)]
    rows = []
    for trial in (best, *compared):
        name = _name(best, trial, trial in data.outdated)
        rows.append((_compared(data, best, trial, name, test is not None), "best" if trial is best else None))
    return table(heads, rows)


def _test(metric: str) -> str:
    return metric.replace("val_", "test_", 1)


def _compared(data: ReportData, best: TrialData, trial: TrialData, name: str, test: bool) -> list[Cell]:
    value, ours = trial.last(data.metric), best.last(data.metric)
    difference = "" if trial is best or value is None or ours is None else metric_difference(data.metric, value - ours)
    cells = [Cell(name), Cell(metric_value(data.metric, value), number=True), Cell(difference, number=True)]
    if test:
        cells.append(Cell(metric_value(data.metric, trial.last(_test(data.metric))), number=True))
    cells.append(Cell(_with_ratio(whole, trial.last("parameters"), best.last("parameters")), number=True))
    cells += [Cell(_with_ratio(short, trial.last(k), best.last(k)), number=True) for k in ("flops", "compute")]
    return cells


def _with_ratio(written: object, value: float | None, base: float | None) -> str:
    shown = str(written(value)) if callable(written) else ""
    return shown if not value or not base or value == base else f"{shown} ({value / base:.2g}\N{MULTIPLICATION SIGN})"


def option_table(data: ReportData, rows: Sequence[OptionRow]) -> str:
    """Mean and best metric of each option; options with fewer than three trials are set back."""
    heads = [("option", False), ("trials", True), ("mean", True), ("best", True)]
    body = []
    for row in rows:
        cells = [Cell(row.option), Cell(str(row.num), number=True), Cell(metric_value(data.metric, row.mean), number=True),
                 Cell(metric_value(data.metric, row.best), number=True)]
        body.append((cells, "few" if row.num < 3 else None))
    return table(heads, body)


def changes_table(trial: TrialData) -> str:
    """Every structural event of a trial."""
    heads = [("epoch", True), ("change", False), ("element", False), ("size", True), ("parameters after", True),
             ("max |change of the output|", True), ("", False)]
    rows = []
    for c in trial.changes:
        sizes = "" if c.size_before is None or c.size_after is None else f"{c.size_before} \N{RIGHTWARDS ARROW} {c.size_after}"
        change = "" if c.function_change is None else f"{c.function_change:.1e}"
        note = "" if c.accepted else f"rolled back: {c.reason}" if c.reason else "rolled back"
        cells = [Cell(str(c.epoch), number=True), Cell(c.kind), Cell(c.element), Cell(sizes, number=True),
                 Cell(whole(c.parameters_after), number=True), Cell(change, number=True), Cell(note)]
        rows.append((cells, None))
    return table(heads, rows)
