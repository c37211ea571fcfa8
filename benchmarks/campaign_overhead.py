"""What a campaign costs beside its trials: 200 trials that do nothing, two at a time, against bare Ray Tune in the same run.

Prints the wall time of each, and two ratios: to function trainables with a fresh actor each (30 are timed and scaled to 200,
without the time that Tune itself takes to start and stop), limit 0.1; and to function trainables with `reuse_actors`, limit 1.2.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.local.placement import local


class Nothing:
    """A trial body of one epoch that does nothing but write its two events."""

    done = False

    def __init__(self, folder: Path) -> None:
        self.folder = TrialFolder(folder)

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> Nothing:
        return cls(folder)

    def step(self) -> dict[str, float]:
        metrics = {"epoch": 1.0, "val_accuracy": 0.5, "compute": 1.0}
        self.folder.append_event({"type": "metrics", "trial": self.folder.name, "time": time.time(), "step": 1, **metrics})
        self.done = True
        return metrics

    def close(self) -> None:
        event = {"type": "status", "status": "finished", "trial": self.folder.name, "time": time.time(), "epoch": 1, "step": 1}
        self.folder.append_event(event)


def wall_s(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare(num_trials: int, root: Path, reuse: bool) -> None:
    from ray import tune

    def nothing(config: dict[str, Any]) -> None:
        tune.report({"val_accuracy": 0.5})

    tuner = tune.Tuner(
        nothing,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=2, reuse_actors=reuse),
        run_config=tune.RunConfig(name=f"bare{num_trials}{reuse}", storage_path=str(root), verbose=0),
    )
    if tuner.fit().num_errors:
        raise RuntimeError("bare Ray Tune trials must not fail")


def campaign(num_trials: int, root: Path) -> None:
    from coppice.orchestrator.campaign import run

    outcome = run(
        Campaign.model_validate(
            {
                "name": "nothing",
                "root": str(root),
                "task": {"dataset": "digits", "network": "mlp"},
                "training": {"epochs": 1, "optimizer": {"sgd": {"lr": {"uniform": [0.0, 1.0]}}}},
                "search": {"trials": num_trials, "max_concurrent": 2},
                "body": "benchmarks.campaign_overhead:Nothing",
            }
        )
    )
    if len(outcome.trials) != num_trials or outcome.failed or outcome.state != "finished":
        raise RuntimeError(f"all trials must finish, but {outcome.failed[:1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--fresh", type=int, default=30, help="how many fresh-actor trials are timed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, local(LocalPlacement(cpus=2)):
        os.environ.pop("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS")  # bare Tune as it is by default
        root = Path(folder)
        bare(2, root, False)
        start = wall_s(lambda: bare(2, root / "start", False))
        fresh = (wall_s(lambda: bare(arguments.fresh, root, False)) - start) / (arguments.fresh - 2) * arguments.trials
        reuse = wall_s(lambda: bare(arguments.trials, root, True))
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        ours = wall_s(lambda: campaign(arguments.trials, root))
    per = 1000 / arguments.trials
    print(f"{arguments.trials} trials that do nothing, two at a time:")
    print(f"  bare Ray Tune, fresh actors   {fresh:7.1f} s  {fresh * per:7.1f} ms a trial (scaled from {arguments.fresh})")
    print(f"  bare Ray Tune, reuse_actors   {reuse:7.1f} s  {reuse * per:7.1f} ms a trial")
    print(f"  campaign                      {ours:7.1f} s  {ours * per:7.1f} ms a trial")
    print(f"campaign / fresh actors = {ours / fresh:.3f} (limit 0.1)")
    print(f"campaign / reuse_actors = {ours / reuse:.3f} (limit 1.2)")


if __name__ == "__main__":
    main()
