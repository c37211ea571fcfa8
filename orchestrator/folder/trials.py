"""The records of a campaign's trials: which trials there are and how each ended, kept in their folders and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import BY_ITS_USER, FINAL, numbers, state_of, status_event
from coppice.orchestrator.folder.files import read_json, write_json
from coppice.orchestrator.folder.history import read_history, rewrite
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder


@dataclass(frozen=True)
class Sample:
    """What to try: the decided tree, the sampled values by path, and what the sampler must be told after a restart (JSON)."""

    tree: dict[str, Any]
    params: dict[str, Any]
    sampling: dict[str, Any]


def compared_with(spec: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """What a trial outside the search is compared with, by the JSON form of its spec.

    Returns:
        The trial of the search, and the epoch whose architecture was taken; None each where that is not known or does not apply.
    """
    checkpoint = Path(spec["architecture"]) if spec.get("architecture") else None
    of_path = checkpoint.parts[-3] if checkpoint is not None and len(checkpoint.parts) > 2 else None
    epoch = int(checkpoint.name) if checkpoint is not None and checkpoint.name.isdigit() else None
    return spec.get("compared_with") or of_path, epoch


def trial_name(number: int) -> str:
    """Id of a trial of the search."""
    return f"t{number:04d}"


def _number(name: str) -> int | None:
    """Place in the search of the trial with this id; None for a trial outside it."""
    return int(name[1:]) if name[:1] == "t" else None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its folder tells it.

    Attributes:
        id: name of its folder.
        number: place in the search, from 0; None for a trial outside the search.
        spec: the JSON form of its `TrialSpec`.
        params: sampled values by path.
        sampling: what the sampler needs to remember the trial (JSON).
        state: as `TrialStatus.state`.
        reports: numbers of each epoch, oldest first.
        times: when each was made, seconds since 1970.
    """

    id: str
    number: int | None
    spec: dict[str, Any]
    params: dict[str, Any]
    sampling: dict[str, Any]
    state: str
    reports: tuple[dict[str, float], ...]
    times: tuple[float, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it will not go on."""
        return self.state in FINAL


class TrialRecords:
    """Reads and writes the trial folders of a campaign, for the process that runs it."""

    def __init__(self, folder: CampaignFolder) -> None:
        self.folder = folder

    def entries(self) -> list[TrialRecord]:
        """All trials, in the order of the search, those outside it last. A folder without params.json is no trial."""
        records = [self._entry(trial.name) for trial in self.folder.trials() if trial.params.exists()]
        return sorted(records, key=lambda e: (e.number is None, e.number or 0, e.id))

    def _entry(self, name: str) -> TrialRecord:
        trial = self.folder.trial(name)
        params = self._params(trial)
        events = read_history(trial.path).events
        metrics = [e for e in events if e["type"] == "metrics"]
        reports, times = tuple(map(numbers, metrics)), tuple(float(e["time"]) for e in metrics)
        state = state_of(events)
        return TrialRecord(name, params["number"], params["spec"], params["params"], params["sampling"], state, reports, times)

    def _params(self, trial: TrialFolder) -> dict[str, Any]:
        params: dict[str, Any] = read_json(trial.params)
        number = params.get("number", _number(trial.name))
        if number != _number(trial.name):
            held = "one outside the search" if number is None else trial_name(number)
            raise ValueError(
                f"{trial.path} must hold the trial that it is named after, but holds {held}; "
                f"give the folder its name back, or move it out of {self.folder.trials_path}."
            )
        return params

    def add(self, name: str, spec: Mapping[str, Any], number: int | None = None, sample: Sample | None = None) -> None:
        """Write down a new trial before anything of it runs."""
        sample = sample or Sample({}, {}, {})
        content = {"spec": spec, "params": sample.params, "number": number, "sampling": sample.sampling}
        write_json(self.folder.trial(name).params, content)
        if number is not None:
            write_json(self.folder.next_number, number + 1)

    def next_number(self) -> int:
        """The number of the search's next trial: one that no trial has had, also none whose folder was deleted."""
        numbers = [_number(trial.name) for trial in self.folder.trials() if trial.params.exists()]
        return max([self._written_number(), *(n + 1 for n in numbers if n is not None)])

    def _written_number(self) -> int:
        """0 where none was written (by an earlier version), or the file is damaged: the folders tell nearly all."""
        try:
            return int(read_json(self.folder.next_number))
        except (OSError, ValueError, TypeError):
            return 0

    def remarks(self) -> list[str]:
        """What was found in the folder of the trials that no campaign puts there, in sentences.

        Raises:
            ValueError: a trial stands under the name of another one.
        """
        strangers = self.folder.strangers()
        known = {trial.name for trial in self.folder.trials() if trial.params.exists() and self._params(trial)}
        gone = [name for number in range(self.next_number()) if (name := trial_name(number)) not in known]
        said = []
        if strangers:
            said.append(f"No trials of this campaign, and left alone: {_few(strangers)} in {self.folder.trials_path}.")
        if gone:
            said.append(
                f"Trials whose folder or params.json was deleted, and which are not run again: {_few(gone)}; for others in their "
                "place raise search.trials and resume."
            )
        return said

    def mark(self, name: str, status: str, result: Mapping[str, Any] | None = None, **content: Any) -> None:
        """Add a status event. Only for a trial that no worker runs now: a file has one writer at a time.

        A job may be ahead of the decision to stop its trial: it writes nothing more, and what it has written since is forgotten.
        """
        epoch = int((result or {}).get("epoch", 0))
        if status == "stopped":
            attempts.close(self.folder.trial(name).path)
            self.folder.trial(name).truncate_events(epoch)
        self.folder.trial(name).append_event(status_event(name, status, epoch, 0, **content))

    def restore(self, under_way: bool) -> list[str]:
        """Write back what is damaged in the events of trials that have ended, and with `under_way` of all others: of trials that
        no process runs now. Returns what was wrong, also where it could not be restored.
        """
        trials = [t for t in self.folder.trials() if t.params.exists()]
        ended = [t for t in trials if under_way or state_of(read_history(t.path).events) in FINAL]
        return [problem for t in ended if (problem := rewrite(t.path))]

    def interrupt(self) -> None:
        """Mark every trial that was running as interrupted, and those that their user has cancelled as failed."""
        for entry in self.entries():
            if not entry.ended and self.folder.trial(entry.id).cancelled.exists():
                self.mark(entry.id, "failed", entry.reports[-1] if entry.reports else None, error=BY_ITS_USER, traceback="")
            elif entry.state == "running":
                self.mark(entry.id, "interrupted", entry.reports[-1] if entry.reports else None)
