"""The folder of a campaign: the only place that knows its file names. Writes are atomic, every file has one writer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import EVENTS, append_line
from coppice.orchestrator.folder.files import held
from coppice.orchestrator.folder.history import rewrite
from coppice.orchestrator.folder.manifest import CHECKPOINTS
from coppice.orchestrator.folder.origin import identity
from coppice.slurm.broker.journal import JOURNAL

__all__ = ["CHECKPOINTS", "EVENTS", "CampaignFolder", "TrialFolder", "cancelled"]

DEEPEST = Path("trials") / "t0000" / CHECKPOINTS / ".000000.0000000.tmp" / "optimizer.safetensors"
"""The longest path in a campaign's folder."""
TRIAL_NAME = re.compile(r"t\d{4,}|(static|big)(-\d+)?")
"""Names of trials: those of the search by their number, then what they are compared with."""


class TrialFolder:
    """`trials/<id>/`: params.json, events.jsonl, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        """The trial's id, `t0000` and on."""
        return self.path.name

    @property
    def params(self) -> Path:
        """What the trial is: its spec, and the sampled values."""
        return self.path / "params.json"

    @property
    def in_use(self) -> Path:
        """Lock file: held by the process that runs the trial."""
        return self.path / ".in-use"

    @property
    def events(self) -> Path:
        """What happened, one JSON object a line."""
        return self.path / EVENTS

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / CHECKPOINTS

    @property
    def stop(self) -> Path:
        """While this file is there, the trial's job ends after the epoch."""
        return self.path / "stop"

    @property
    def cancelled(self) -> Path:
        """This file is there when the trial's jobs were cancelled for good, by their user."""
        return self.path / "cancelled"

    @property
    def meeting(self) -> Path:
        """Where the processes of a trial that has several learn of each other."""
        return self.path / "ranks.json"

    @property
    def request(self) -> Path:
        """What the trial's next job asks for, where an earlier one had too little."""
        return self.path / "request.json"

    def append_event(self, event: Mapping[str, Any]) -> bytes:
        """Add one event, unless a newer attempt runs the trial; returns the line. What it says of the trial's state is synced.

        Raises:
            Superseded: it does; see `coppice.orchestrator.folder.attempts`.
        """
        attempts.check(self.path)
        return append_line(self.events, event, sync=event.get("type") == "status")

    def truncate_events(self, epoch: int) -> str:
        """Forget what happened after `epoch`, because the trial goes on from there and will do it again.

        What is missing in the file of events up to there, or was changed in it, is written back from the checkpoints.

        Returns:
            What was wrong with the file; empty where nothing was.
        """
        return rewrite(self.path, epoch)


class CampaignFolder:
    """`<root>/<campaign>/`: the file, what exactly is run, trials, jobs, results and the report."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def spec(self) -> Path:
        """The campaign file as it was given."""
        return self.path / "campaign.yaml"

    @property
    def lock(self) -> Path:
        """Resolved configuration, versions, commit and seed."""
        return self.path / "campaign.lock.json"

    @property
    def in_use(self) -> Path:
        """Lock file: held by the process that runs the campaign."""
        return self.path / ".in-use"

    @property
    def jobs(self) -> Path:
        """What concerns Slurm: scripts, logs, the journal of jobs."""
        return self.path / "jobs"

    @property
    def journal(self) -> Path:
        """Every attempt at a trial that was given to Slurm, one JSON object a line."""
        return self.jobs / JOURNAL

    @property
    def pool(self) -> Path:
        """One folder a start of the campaign's pool."""
        return self.jobs / "pool"

    @property
    def drivers(self) -> Path:
        """How many drivers in a row brought nothing on."""
        return self.jobs / "drivers.json"

    @property
    def driver_log(self) -> Path:
        """What the campaign's drivers print."""
        return self.jobs / "driver.log"

    @property
    def cancelled(self) -> Path:
        """This file is there when the campaign was cancelled for good, by its user."""
        return self.path / "cancelled"

    @property
    def driver_script(self) -> Path:
        """The sbatch script of the campaign's driver."""
        return self.jobs / "driver.sh"

    @property
    def ray_token(self) -> Path:
        """The secret of the campaign's Ray."""
        return self.path / ".ray-token"

    @property
    def dashboard(self) -> Path:
        """Where the campaign's Ray listens."""
        return self.path / "dashboard.json"

    def identity(self) -> str:
        """A few letters that tell this campaign from others of its name."""
        return identity(self.path, self.lock)

    @property
    def tune(self) -> Path:
        """Ray Tune's own files: a cache, never read again."""
        return self.path / "tune"

    @property
    def decisions(self) -> Path:
        """What the trial scheduler decided on each report, in that order."""
        return self.path / "decisions.jsonl"

    @property
    def results(self) -> Path:
        """The Parquet tables: trials, reports, events."""
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        """The best network, by itself."""
        return self.path / "best"

    @property
    def trials_path(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    def trial(self, name: str) -> TrialFolder:
        """The folder of one trial, made when it is missing."""
        return TrialFolder(self.trials_path / name)

    def running(self) -> bool:
        """Whether a process runs the campaign now (on this machine, or where the file system's locks span machines)."""
        return held(self.in_use)

    @property
    def next_number(self) -> Path:
        """The number that the search's next trial gets: numbers of trials whose folders were deleted are not given again."""
        return self.trials_path / ".next"

    def trials(self) -> list[TrialFolder]:
        """All trial folders, by name."""
        return [TrialFolder(p) for p in self._in_trials() if TRIAL_NAME.fullmatch(p.name)]

    def strangers(self) -> list[str]:
        """Names of folders beside those of the trials that are no trials: copies, backups."""
        return [p.name for p in self._in_trials() if not TRIAL_NAME.fullmatch(p.name) and not p.name.startswith(".")]

    def _in_trials(self) -> list[Path]:
        return sorted(p for p in self.trials_path.iterdir() if p.is_dir()) if self.trials_path.is_dir() else []


def cancelled(folder: CampaignFolder) -> bool:
    """Whether the whole campaign was cancelled: its driver ends, and none goes on, until the campaign is resumed."""
    return folder.cancelled.exists()
