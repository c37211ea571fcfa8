"""What Ray Tune runs: a trial body, one epoch a step. Every trial on a reused actor starts in a clean process."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from orchestrator.campaign.process import ProcessState
from orchestrator.config import TrialSpec
from orchestrator.status import numbers
from orchestrator.store import TrialFolder, exclusive, read_events

WORST = 1e30
"""Loss that the trial scheduler is told for a trial that failed: large, but finite, so that quantiles stay numbers."""
LEFTOVER_WAIT_S = 60.0
"""How long a trial waits for a worker of a killed campaign that still holds it."""
POINTER = "checkpoint.json"


class Body(Protocol):
    """What runs as a trial: `orchestrator.trial.Trial`, or a class of the user's.

    A body writes its own metrics, structural and checkpoint events.
    """

    done: bool

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> Body:
        """Start the trial, or go on from the newest valid checkpoint in `folder`."""

    def step(self) -> dict[str, float]:
        """One epoch; returns its metrics (`epoch` and `compute` among them)."""

    def close(self) -> None:
        """Called once after the last step."""


class BodyTrainable(tune.Trainable):
    """Runs bodies for Ray Tune. The configuration names the trial's folder, its body and the metrics that must be reported."""

    def setup(self, config: dict[str, Any]) -> None:
        """Remember the clean process and take the first trial."""
        self._process = ProcessState()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial, with nothing left of the one before."""
        self._end()
        self._process.restore()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Let go of the trial when the worker ends."""
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._task = config
        self._trial = TrialFolder(Path(config["folder"]))
        self._held = contextlib.ExitStack()
        self._body: Body | None = None
        self._last: dict[str, float] = {}

    def _end(self) -> None:
        self._body = None
        self._held.close()

    def step(self) -> dict[str, Any]:
        """One epoch. What goes wrong in a trial is kept in its events and ends this trial only."""
        try:
            return self._advance()
        except Exception as error:  # the one place where a trial fails and the campaign goes on
            return self._failed(error)

    def _advance(self) -> dict[str, Any]:
        body = self._body or self._open()
        if not body.done:
            self._last = body.step()
            self._check(self._last)
        if body.done:
            body.close()
            self._ensure_finished()
            self._end()
        return {**self._last, "done": body.done, "finished": body.done, "failed": ""}

    def _open(self) -> Body:
        self._held.enter_context(exclusive(self._trial.in_use, LEFTOVER_WAIT_S))
        spec = TrialSpec.model_validate(json.loads(self._trial.params.read_bytes())["spec"])
        kind = load_body(self._task["body"])
        self._process.seed(spec.seed)
        self._body = body = kind.open(spec, self._trial.path)
        if body.done:
            reports = [e for e in read_events(self._trial.events) if e["type"] == "metrics"]
            self._last = numbers(reports[-1]) if reports else {}
        return body

    def _check(self, metrics: dict[str, float]) -> None:
        for name in self._task["metrics"]:
            if name not in metrics:
                raise KeyError(f"the trial must report the metrics of the search, but {name} is not in {sorted(metrics)}.")
            if not math.isfinite(metrics[name]):
                raise ArithmeticError(f"metric {name} must be finite, but it is {metrics[name]} in epoch {metrics.get('epoch')}.")

    def _failed(self, error: Exception) -> dict[str, Any]:
        reason = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk must not hide the reason: it is in the result too
            self._status("failed", error=reason, traceback="".join(traceback.format_exception(error)))
        self._end()
        sign = -1.0 if self._task["mode"] == "max" else 1.0
        worst = dict.fromkeys(self._task["metrics"], sign * WORST)
        return {"epoch": 0, "compute": 0.0, **self._last, **worst, "done": True, "finished": False, "failed": reason}

    def _ensure_finished(self) -> None:
        last: dict[str, Any] = next((e for e in reversed(read_events(self._trial.events)) if e["type"] == "status"), {})
        if last.get("status") != "finished":
            self._status("finished")

    def _status(self, status: str, **content: str) -> None:
        epoch, step = int(self._last.get("epoch", 0)), int(self._last.get("step", 0))
        head = {"type": "status", "trial": self._trial.name, "time": time.time(), "epoch": epoch, "step": step}
        self._trial.append_event({**head, "status": status, **content})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Give Ray a pointer to the trial's folder: no bytes are copied."""
        Path(checkpoint_dir, POINTER).write_text(json.dumps({"trial": str(self._trial.path)}))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to do: the body goes on from its own newest checkpoint."""


def load_body(reference: str) -> type[Body]:
    """The class called `package.module:Class`.

    Raises:
        ValueError: the reference has another form, or the module has no such class.
        ImportError: the module cannot be imported.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise ValueError(f"body must be written as package.module:Class, but got {reference!r}.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise ValueError(f"{module} must have a class {name}, but has not (body: {reference}).")
    return found
