"""The queryable form of a campaign: three Parquet tables, made from its folder whenever they are wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coppice.orchestrator.folder.files import read_json, write_atomic
from coppice.orchestrator.folder.history import read_history
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus

Rows = list[dict[str, Any]]


def results(folder: Path | str) -> dict[str, pa.Table]:
    """Tables of the campaign in `folder`, as far as it has come.

    Returns:
        `reports`: a row for each epoch of each trial. `events`: a row for each change of a network. `trials`: a row for each
        trial, with its sampled values as `params/<path>`, state, best and last metric, final size and cost, and what failed.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file is damaged; the message names it.
    """
    board = StatusBoard(Path(folder)).read()
    reports: Rows = []
    changes: Rows = []
    trials: Rows = []
    for status in board:
        trial = CampaignFolder(Path(folder)).trial(status.id)
        events = read_history(trial.path).events
        reports += [_flat({k: v for k, v in e.items() if k != "type"}) for e in events if e["type"] == "metrics"]
        changes += [_flat({k: v for k, v in e.items() if k != "type"}) for e in events if e["type"] == "structural"]
        trials.append(_trial_row(status, read_json(trial.params)))
    return {"reports": _table(reports, "trial"), "events": _table(changes, "trial"), "trials": _table(trials, "trial")}


def write_results(folder: Path) -> dict[str, Path]:
    """Write the tables of `results` to `results/<name>.parquet`; returns the files by table."""
    target = CampaignFolder(folder).results
    target.mkdir(exist_ok=True)
    written = {}
    for name, table in results(folder).items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        written[name] = target / f"{name}.parquet"
        write_atomic(written[name], sink.getvalue().to_pybytes())
    return written


def best_trial(folder: Path, metric: str, mode: str) -> TrialStatus | None:
    """The trial of the search with the best last value of `metric`: among finished ones, else among those that did not fail.

    Of equal ones the smallest counts, then the first.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: `mode` is neither `max` nor `min`.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be max or min, but got {mode!r}.")
    sign = -1.0 if mode == "max" else 1.0
    scored = [t for t in StatusBoard(folder).read() if t.label is None and t.state != "failed" and metric in t.metrics]
    finished = [t for t in scored if t.state == "finished"]
    return min(finished or scored, key=lambda t: (sign * t.metrics[metric], t.parameters or 0.0, t.id), default=None)


def _trial_row(status: TrialStatus, params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trial": status.id,
        "label": status.label,
        "compared_with": status.compared_with,
        "state": status.state,
        "epoch": status.epoch,
        "best": status.best,
        **{f"last/{name}": value for name, value in status.metrics.items() if name != "epoch"},
        "num_structural": status.num_structural,
        "wall_s": status.seconds,
        "error": status.reason if status.state == "failed" else None,
        "damage": status.damage or None,
        **{f"params/{name}": value for name, value in params["params"].items()},
    }


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings become columns `outer/inner`; lists become JSON text."""
    row: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, Mapping):
            row |= {f"{key}/{inner}": v for inner, v in _flat(content).items()}
        else:
            row[key] = json.dumps(content) if isinstance(content, (list, tuple)) else content
    return row


def _table(rows: Rows, first: str) -> pa.Table:
    """One column for each key of any row; columns with values of several kinds become text."""
    names = list(dict.fromkeys([first, *(name for row in rows for name in row)]))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        return pa.array([None if v is None else float(v) for v in values])
    if not kinds:
        return pa.array(values, pa.string())
    if len(kinds) > 1 or not kinds <= {int, float, bool, str}:
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values])
    return pa.array(values)
