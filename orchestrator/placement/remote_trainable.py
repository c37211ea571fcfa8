"""A trial that runs as a job, as Ray Tune sees it: an object of the driver that hands over results as the job writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ray import tune

from coppice.orchestrator.folder.events import FINAL, numbers, read_events, state_of
from coppice.orchestrator.folder.files import read_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.runner import metrics_of_failed
from coppice.orchestrator.placement.supervisor import Supervisor


class RemoteTrainable(tune.Trainable):
    """Follows one trial's events. Nothing here waits: `ready` says whether `step` has something to hand over."""

    supervisor: ClassVar[Supervisor]
    """Set by the placement for as long as the campaign runs."""

    def setup(self, config: dict[str, Any]) -> None:
        """Let the trial run."""
        self._trial = TrialFolder(Path(config["folder"]))
        self._reported = int(config.get("reported", 0))
        self._epochs = int(read_json(self._trial.params)["spec"]["training"]["epochs"])
        self._seen: tuple[int, int] | None = None
        self._waiting: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}
        self.supervisor.start({k: config[k] for k in ("folder", "body", "metrics", "mode")})

    def ready(self) -> bool:
        """Whether there is a result to hand over."""
        self.supervisor.poll()
        if not self._waiting:
            self._read()
        return bool(self._waiting)

    def _read(self) -> None:
        """Results of epochs that were not handed over; the last one waits until it is known how the trial ended."""
        ended = self.supervisor.ended(self._trial.name)
        try:
            stat = self._trial.events.stat()
        except FileNotFoundError:
            return
        if (stat.st_size, stat.st_mtime_ns) == self._seen and not ended:
            return
        self._seen = (stat.st_size, stat.st_mtime_ns)
        events = read_events(self._trial.events)
        state = state_of(events)
        rows = [numbers(e) for e in events if e["type"] == "metrics" and e["epoch"] > self._reported]
        final = state in FINAL or ended
        if not final and rows and rows[-1]["epoch"] >= self._epochs:
            rows.pop()
        self._waiting = [{**row, "done": False, "finished": False, "failed": ""} for row in rows]
        if rows:
            self._reported, self._last = int(rows[-1]["epoch"]), rows[-1]
        if final:
            self._end(state, events)

    def _end(self, state: str, events: list[dict[str, Any]]) -> None:
        if state == "failed":
            status = [e for e in events if e["type"] == "status"][-1]
            metrics = {"epoch": 0, "compute": 0.0, **self._last, **metrics_of_failed(self.config)}
            self._waiting.append({**metrics, "failed": status.get("error", "failed"), "done": True, "finished": False})
            return
        if state == "interrupted":
            status = [e for e in events if e["type"] == "status"][-1]
            metrics = {"epoch": 0, "compute": 0.0, **metrics_of_failed(self.config), **self._last}
            why = {"failed": "", "interrupted": status.get("reason", "interrupted"), "done": True, "finished": False}
            self._waiting.append({**metrics, **why})
            return
        if not self._waiting:
            reports = [numbers(e) for e in events if e["type"] == "metrics"]
            self._waiting.append({**(reports[-1] if reports else {}), "failed": ""})
        self._waiting[-1] |= {"done": True, "finished": state == "finished"}

    def step(self) -> dict[str, Any]:
        """The next result, which `ready` has seen."""
        return self._waiting.pop(0)

    def cleanup(self) -> None:
        """Tune wants nothing more of the trial."""
        self.supervisor.release(self._trial.name)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The trial's job keeps its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The trial's job goes on from its own."""
