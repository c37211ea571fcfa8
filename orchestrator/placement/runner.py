"""One trial of a campaign, whatever runs it: opens its body, steps it, and keeps in its events how it ended."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import BY_ITS_USER, numbers, read_events, status_event
from coppice.orchestrator.folder.files import exclusive, read_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.folder.surroundings import Trouble, trouble_of
from coppice.orchestrator.working_directory import search_working_directory
from coppice.references import resolve

if TYPE_CHECKING:  # a trial whose body does without PyTorch starts without it
    from coppice.orchestrator.trial.process_group import ProcessRanks

STEP, END = "step", "end"
FAILED_LOSS = 1e30
"""Loss that the trial scheduler gets for a trial that failed: large, but finite, so that quantiles stay numbers."""
LEFTOVER_WAIT_S = 60.0
"""How long a trial waits for a worker of a killed campaign that still holds it."""


class Body(Protocol):
    """What runs as a trial: `coppice.orchestrator.trial.trial.Trial`, or a class of the user's.

    A body writes its own metrics, structural and checkpoint events. With several GPUs there is one for each, on ranks that take
    the same steps (`coppice.orchestrator.trial.process_group.current`); only that of rank 0 may write.
    """

    done: bool

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> Body:
        """Start the trial, or go on from the newest valid checkpoint in `folder`."""

    def step(self) -> dict[str, float]:
        """One epoch; returns its metrics (`epoch` and `compute` among them)."""

    def close(self) -> None:
        """Called once after the last step."""


class Runner:
    """Steps the body of one trial. What goes wrong in it ends this trial only.

    Args:
        task: names the trial's folder (`folder`), its `body`, the `metrics` that it must report and their `mode`.
        prepare: called with the trial's seed before its body is opened.
        ranks: where several train the trial together, as seen from rank 0; the others run `accompany`.
    """

    def __init__(
        self, task: dict[str, Any], prepare: Callable[[int], None] = lambda seed: None, ranks: ProcessRanks | None = None
    ) -> None:
        self._task = task
        self._prepare = prepare
        self._ranks = ranks
        self._trial = TrialFolder(Path(task["folder"]))
        self._held = contextlib.ExitStack()
        self._body: Body | None = None
        self._last: dict[str, float] = {}
        self._stepping = False

    def end(self) -> None:
        """Let go of the trial."""
        self._body = None
        self._held.close()
        self._lead(END)
        self._ranks = None

    def save(self) -> None:
        """Keep what the trial has reached, where its body knows how: the process must end, or the trial was stopped.

        Nothing is kept of an epoch that was broken off.
        """
        keep = getattr(self._body, "save_now", None)
        if keep is not None and not self._stepping:
            keep()

    def step(self) -> dict[str, Any]:
        """One epoch. What goes wrong in a trial is kept in its events and ends this trial only.

        Returns:
            Its metrics; `done`, `finished`, `failed` (why) and, where the surroundings failed and not the trial, `interrupted`
            (why), `trouble` (its number) and `path`.
        """
        if self._trial.cancelled.exists():
            return self._cancelled()
        try:
            return self._advance()
        except Exception as error:  # the one place where a trial fails and the campaign goes on
            if trouble := trouble_of(error, self._trial.path):
                return self._interrupted(trouble)
            return self._failed(error, self._ranks.problem(error) if self._ranks else "")

    def _advance(self) -> dict[str, Any]:
        body = self._body or self._open()
        if not body.done:
            self._lead(STEP)
            self._stepping = True
            self._last = body.step()
            self._stepping = False
            self._check(self._last)
        if body.done:
            body.close()
            self._ensure_finished()
            self.end()
        return {**self._last, "done": body.done, "finished": body.done, "failed": ""}

    def _open(self) -> Body:
        wait_s = math.inf if attempts.held(self._trial.path) else LEFTOVER_WAIT_S  # an attempt that was replaced ends for certain
        self._held.enter_context(exclusive(self._trial.in_use, wait_s))
        self._lead(STEP)
        self._body = body = open_body(self._task, self._prepare)
        if body.done:
            reports = [e for e in read_events(self._trial.events) if e["type"] == "metrics"]
            self._last = numbers(reports[-1]) if reports else {}
        return body

    def _lead(self, what: str) -> None:
        if self._ranks:
            self._ranks.lead(what)

    def _check(self, metrics: dict[str, float]) -> None:
        for name in self._task["metrics"]:
            if name not in metrics:
                raise KeyError(f"the trial must report the metrics of the search, but {name} is not in {sorted(metrics)}.")
            if not math.isfinite(metrics[name]):
                raise ArithmeticError(f"metric {name} must be finite, but it is {metrics[name]} in epoch {metrics.get('epoch')}.")

    def _failed(self, error: Exception, of_rank: str) -> dict[str, Any]:
        reason = of_rank.partition("\n")[0] or f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk must not hide the reason: it is in the result too
            trace = of_rank.partition("\n")[2] or "".join(traceback.format_exception(error))
            self._status("failed", error=reason, traceback=trace)
        return self._over(failed=reason)

    def _cancelled(self) -> dict[str, Any]:
        """Its user does not want it any more."""
        self._status("failed", error=BY_ITS_USER, traceback="")
        return self._over(failed=BY_ITS_USER)

    def _interrupted(self, trouble: Trouble) -> dict[str, Any]:
        """Nothing is wrong with the trial: it goes on from its newest checkpoint once the trouble is over."""
        with contextlib.suppress(OSError):  # where the trial's own folder is concerned it cannot be written down
            self._status("interrupted", reason=str(trouble))
        return self._over(failed="", interrupted=str(trouble), trouble=trouble.number, path=str(trouble.path))

    def _over(self, **why: Any) -> dict[str, Any]:
        self.end()
        worst = metrics_of_failed(self._task)
        metrics = {**worst, **self._last} if "interrupted" in why else {**self._last, **worst}
        return {"epoch": 0, "compute": 0.0, **metrics, "done": True, "finished": False, **why}

    def _ensure_finished(self) -> None:
        last: dict[str, Any] = next((e for e in reversed(read_events(self._trial.events)) if e["type"] == "status"), {})
        if last.get("status") != "finished":
            self._status("finished")

    def _status(self, status: str, **content: Any) -> None:
        epoch, step = int(self._last.get("epoch", 0)), int(self._last.get("step", 0))
        self._trial.append_event(status_event(self._trial.name, status, epoch, step, **content))


def open_body(task: dict[str, Any], prepare: Callable[[int], None]) -> Body:
    """The body of a trial, from its newest checkpoint."""
    folder = TrialFolder(Path(task["folder"]))
    spec = TrialSpec.model_validate(read_json(folder.params)["spec"])
    kind = load_body(task["body"])
    prepare(spec.seed)
    return kind.open(spec, folder.path)


def accompany(task: dict[str, Any], ranks: ProcessRanks, prepare: Callable[[int], None] = lambda seed: None) -> None:
    """What the other ranks do: open the same body and take the same steps as rank 0, for as long as it says so.

    Raises:
        RanksLost: rank 0 is gone.
        Exception: whatever goes wrong here; rank 0 finds word of it.
    """
    body: Body | None = None
    while ranks.follow() == STEP:
        if body is None:
            body = open_body(task, prepare)
        elif not body.done:
            body.step()
    if body is not None and body.done:
        body.close()


def metrics_of_failed(task: dict[str, Any]) -> dict[str, float]:
    """What the trial scheduler gets as the metrics of a trial that failed: the worst there is, but finite."""
    return dict.fromkeys(task["metrics"], (-1.0 if task["mode"] == "max" else 1.0) * FAILED_LOSS)


def load_body(reference: str) -> type[Body]:
    """The class called `package.module:Class`.

    Raises:
        ValueError: the reference has another form, its module cannot be imported, or has no such class.
    """
    search_working_directory()
    body: type[Body] = resolve("body", reference, {}, object)
    return body
