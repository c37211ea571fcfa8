"""Hands the trials of a campaign to Ray Tune, under our own names, and writes down how they ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search.search_algorithm import SearchAlgorithm

from coppice.orchestrator.campaign.alike import AlikeFailures
from coppice.orchestrator.campaign.decisions import why_stopped
from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder.events import BY_ITS_USER
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.surroundings import Trouble
from coppice.orchestrator.folder.trials import Sample, TrialRecord, TrialRecords, trial_name
from coppice.orchestrator.placement.ray_bundles import bundles_of

Comparisons = Callable[[], list[tuple[str, TrialSpec]]]

WORKER_RETRIES = 2
"""How often a trial whose worker died (not: whose body failed) goes on in a new one, from its own checkpoint."""


class TuneSearch(SearchAlgorithm):
    """The trials: first those to go on with, then new ones as the sampler asks for them, then the comparisons.

    Attributes:
        limit: how many trials may be under way; no value is sampled before its trial can start.
        lost: what has ended that no trial can do without: what becomes of trials then is not their fault.
        trouble: what failed around a trial, and would fail the next one; None while all is well.
        alike: trials that failed in the same way.
        interrupted: trials that were ended by something that is not their fault, and go on when the campaign is resumed.

    Args:
        entries: what the ledger holds, as the scheduler knows it. Jobs may write
            while they are read, so they are read once for everything that must agree.
        comparisons: called once when the search has ended, returns (name, spec) of trials outside it.
    """

    def __init__(
        self, spec: Campaign, ledger: TrialRecords, entries: Sequence[TrialRecord], sampler: Sampler,
        comparisons: Comparisons, stop_at: dict[str, float],
    ) -> None:  # fmt: skip
        self._spec, self._ledger, self._sampler, self._comparisons, self._stop_at = spec, ledger, sampler, comparisons, stop_at
        self._waiting = [(e.id, e.spec.get("label")) for e in entries if not e.ended]
        self._numbers = {e.id: e.number for e in entries}
        self._reports = {e.id: list(e.reports) for e in entries if not e.ended}
        self._known = {e.id for e in entries}
        self._next = ledger.next_number()
        self._live: set[str] = set()
        self._stops: dict[str, tuple[dict[str, Any], str]] = {}
        self.limit = 1
        self.lost: Callable[[], str] = lambda: ""
        self.trouble: Trouble | None = None
        self.alike, self.interrupted = AlikeFailures(), set[str]()
        self._steps: dict[str, int] = {}
        self._exhausted = self._compared = self._stopped = False
        self._experiment: Experiment | None = None

    @property
    def complete(self) -> bool:
        """Whether every trial of the campaign has ended."""
        return self._all_given() and not self._live and not self.interrupted

    @property
    def hopeless(self) -> bool:
        """Whether further trials would fare no better than the last ones."""
        return self.trouble is not None or bool(self.alike.reason)

    def add_configurations(self, experiments: Any) -> None:
        """Take the experiment whose storage and trainable the trials use."""
        self._experiment = experiments[0]

    def set_finished(self) -> None:
        """Give out no more trials."""
        self._stopped = True

    def is_finished(self) -> bool:
        """Whether there are no more trials to give out."""
        return self._stopped or self.hopeless or self._all_given()

    def _search_given(self) -> bool:
        return not self._waiting and (self._exhausted or self._next >= self._spec.search.trials)

    def _all_given(self) -> bool:
        if self._search_given() and not self._live and not self._compared and not self.interrupted:
            self._compare()
        return self._search_given() and (self._compared or bool(self.interrupted and not self._live))

    def _compare(self) -> None:
        self._compared = True
        for name, spec in self._comparisons():
            if name not in self._known:
                self._add(name, spec.model_dump(mode="json"))

    def next_trial(self) -> TuneTrial | None:
        """The next trial, or None while there is none to start now."""
        self.write_stops()
        if self.is_finished() or len(self._live) >= min(self.limit, self.alike.room or self.limit):
            return None
        while not self._waiting:
            if self._search_given() or self.hopeless:
                return None
            self._ask()
        name, label = self._waiting.pop(0)
        self._live.add(name)
        return self._tune_trial(name, label)

    def _ask(self) -> None:
        number, name = self._next, trial_name(self._next)
        sample = self._sampler.ask(number)
        if sample is None:
            self._exhausted = True
            return
        self._next += 1
        tree = {**sample.tree, "seed": self._spec.seed + number}
        try:
            spec = TrialSpec.model_validate(tree).model_dump(mode="json")
        except ValidationError as error:
            self._ledger.add(name, tree, number, sample)
            reason = f"the sampled values do not fit together: {error}"
            self._ledger.mark(name, "failed", error=reason)
            self._sampler.tell(number, "failed", ())
            self.alike.failed(reason, bool(self._live))
            return
        self._add(name, spec, number, sample)

    def _add(self, name: str, spec: dict[str, Any], number: int | None = None, sample: Sample | None = None) -> None:
        self._ledger.add(name, spec, number, sample)
        self._known.add(name)
        self._numbers[name], self._reports[name] = number, []
        self._waiting.append((name, spec.get("label")))

    def _tune_trial(self, name: str, label: str | None) -> TuneTrial:
        experiment = self._experiment
        assert experiment is not None, "Ray Tune calls add_configurations before next_trial"
        search = self._spec.search
        config = {
            "folder": str(self._ledger.folder.trial(name).path),
            "body": self._spec.body,
            "metrics": [search.metric, *search.also],
            "mode": search.mode,
            "label": label,
            "bundles": bundles_of(self._spec.resources),
            "reported": max((int(r["epoch"]) for r in self._reports[name]), default=0),
        }
        return TuneTrial(
            experiment.run_identifier,
            config=config,
            trial_id=name,
            storage=experiment.storage,
            experiment_tag=name,
            placement_group_factory=PlacementGroupFactory(bundles_of(self._spec.resources)),
            stopping_criterion={} if label else self._stop_at,
            checkpoint_config=experiment.checkpoint_config,
            trial_dirname_creator=folder_name,
            max_failures=WORKER_RETRIES,
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember the metrics of an epoch."""
        self._reports[trial_id].append(result)
        self._steps[trial_id] = self._steps.get(trial_id, 0) + 1

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write down how a trial ended, unless its worker has, and tell the sampler."""
        if trial_id not in self._live or (error and self.lost()):
            return
        self._live.discard(trial_id)
        state = self._ending(trial_id, result or {}, error)
        number, reports = self._numbers[trial_id], self._reports.pop(trial_id)
        self._judge(trial_id, state, result or {})
        if state == "interrupted":
            self.interrupted.add(trial_id)
        elif number is not None:
            self._sampler.tell(number, state, [*reports, result] if result else reports)

    def _judge(self, trial_id: str, state: str, result: dict[str, Any]) -> None:
        """Whether the others have a chance."""
        done = self._steps.pop(trial_id, 0)
        reason = str(result.get("failed", ""))
        if state in ("finished", "stopped"):
            self.alike.good()
        elif state == "failed" and reason != BY_ITS_USER:
            self.alike.failed(reason, any(self._steps.get(other, 0) > done for other in self._live))
        if result.get("trouble"):
            self.trouble = Trouble(int(result["trouble"]), Path(result["path"]))

    def _ending(self, trial_id: str, result: dict[str, Any], error: bool) -> str:
        if error:
            reason = f"its worker process died {WORKER_RETRIES + 1} times: out of memory, a crash in native code, or killed"
            self._ledger.mark(trial_id, "interrupted", result, reason=reason)
            return "interrupted"
        if result.get("interrupted"):
            return "interrupted"
        if result.get("failed"):
            return "failed"
        if result.get("finished"):
            return "finished"
        why = why_stopped(self._stop_at, self._spec.search.trial_scheduler.name, result)
        self._stops[trial_id] = (result, why)
        self.write_stops()
        return "stopped"

    def write_stops(self, wait_s: float = 0.0) -> None:
        """Write down that trials were stopped: those of this machine once their workers, which keep what they have reached, have
        let go of them; each may take `wait_s` seconds for that. A job is shut out instead.
        """
        for name, (result, why) in list(self._stops.items()):
            local = self._spec.placement.name == "local"
            try:
                with exclusive(self._ledger.folder.trial(name).in_use, wait_s) if local else contextlib.nullcontext():
                    self._ledger.mark(name, "stopped", result, reason=why)
            except BlockingIOError:
                continue
            del self._stops[name]


def folder_name(trial: TuneTrial) -> str:
    """Ray Tune's folder of a trial has the trial's name."""
    return str(trial.trial_id)
