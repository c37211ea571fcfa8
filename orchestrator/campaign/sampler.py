"""Asks Optuna what to try next and tells it what came of it. The study is rebuilt from the trials' folders, never stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import TrialState

from coppice.orchestrator.config.grid import grid
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.samplers import make_sampler
from coppice.orchestrator.config.space import Space
from coppice.orchestrator.folder.trials import Sample, TrialRecord
from coppice.orchestrator.seeds import derive


class Sampler:
    """The search of a campaign.

    What is asked for trial n depends on the search's seed, n and the results told so far, not on how often the campaign
    was interrupted: each trial has a sampler of its own, seeded for it.
    """

    def __init__(self, spec: Campaign) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = spec.search
        self._space = Space({"task": spec.task, "training": spec.training, "adaptations": spec.adaptations})
        modes = [spec.search.mode, *spec.search.also.values()]
        self._metrics = [spec.search.metric, *spec.search.also]
        self._study = optuna.create_study(directions=["maximize" if m == "max" else "minimize" for m in modes])

    def restore(self, entries: Sequence[TrialRecord]) -> None:
        """Remember the trials of an interrupted campaign; those that have not ended are running again.

        In the place of trials whose folders are gone stands one that nothing is known of, so that numbers stay as they were.
        """
        for entry in entries:
            if entry.number is None:
                continue
            self._fill(entry.number)
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING,
                    params=entry.params,
                    distributions={k: json_to_distribution(v) for k, v in entry.sampling["distributions"].items()},
                    system_attrs=entry.sampling["attributes"],
                )
            )
            if entry.ended:
                self.tell(entry.number, entry.state, entry.reports)

    def _fill(self, number: int) -> None:
        while len(self._study.get_trials(deepcopy=False)) < number:
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))

    def ask(self, number: int) -> Sample | None:
        """What to try as trial `number`; None when the sampler is `grid` and all points have been asked."""
        self._fill(number)
        if self._search.sampler.name == "grid":
            point = next(itertools.islice(grid(self._space), number, None), None)
            if point is None:
                return None
            self._study.enqueue_trial(point)
        self._study.sampler = make_sampler(self._search, derive(self._search.seed, "ask", number))
        trial = self._study.ask()
        tree = self._space.sample(trial)
        frozen = self._study.get_trials(deepcopy=False)[number]
        sampling = {
            "distributions": {k: distribution_to_json(v) for k, v in frozen.distributions.items()},
            "attributes": dict(frozen.system_attrs),
        }
        return Sample(tree, dict(frozen.params), sampling)

    def tell(self, number: int, state: str, reports: Sequence[dict[str, float]]) -> None:
        """What came of trial `number`: its state and the metrics of its epochs.

        A stopped trial counts with what it had reached, as one that was pruned where the sampler knows such.
        """
        if state == "failed" or not reports:
            self._study.tell(number, state=TrialState.FAIL)
            return
        values = [reports[-1][name] for name in self._metrics]
        if state == "stopped" and len(values) == 1:
            trial = optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
            trial.report(values[0], step=int(reports[-1]["epoch"]))
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, values)
