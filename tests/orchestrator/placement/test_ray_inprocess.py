"""Trials as objects of the driver: the same decisions as with actors, errors stay with their trial, and nothing blocks."""

import json
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from coppice.orchestrator.campaign import run
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.placement.ray_inprocess import InProcessActorManager, in_process_trials
from tests.support.campaigns import campaign, ray

__all__ = ["ray"]
SEARCHES: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "random with ASHA": {"sampler": "random", "scheduler": {"asha": {"max_epochs": 8, "grace_epochs": 1, "reduction_factor": 2}}},
    "TPE with ASHA": {"sampler": "tpe", "scheduler": {"asha": {"max_epochs": 8, "grace_epochs": 1, "reduction_factor": 2}}},
    "evolution": {"sampler": {"nsga2": {"population_size": 4}}, "and": {"parameters": "min"}},
}


def decisions(root: Path) -> list[tuple[Any, ...]]:
    """What was tried, how far it came, and how it ended."""
    entries = TrialRecords(CampaignFolder(root / "c")).entries()
    return [(e.id, json.dumps(e.spec, sort_keys=True), e.state, [r["epoch"] for r in e.reports]) for e in entries]


@pytest.mark.parametrize("name", SEARCHES)
def test_the_same_decisions_as_with_actors(ray: None, tmp_path: Path, name: str) -> None:
    """One trial at a time, so that the order in which results arrive is the same."""
    spaces = {"x": {"uniform": [0, 1]}, "width": {"int": [1, 3]}}
    search = {"trials": 12, "max_concurrent": 1, **SEARCHES[name]}
    made = {n: campaign(tmp_path / n, spaces, training={"epochs": 8}, search=search) for n in ("actors", "objects")}
    assert run(made["actors"]).state == "finished"
    with in_process_trials(1):
        assert run(made["objects"]).state == "finished"
    with_actors, with_objects = decisions(tmp_path / "actors"), decisions(tmp_path / "objects")
    assert with_objects == with_actors and len(with_actors) == 12
    if "ASHA" in name:
        assert {d[2] for d in with_actors} == {"finished", "stopped"}


class Waiting(tune.Trainable):
    """Is ready for one more result whenever the test says so."""

    allowed: dict[str, int] = {}
    stopped: list[str] = []

    def setup(self, config: dict[str, Any]) -> None:
        self.name, self.done_ones = config["name"], 0
        if config.get("broken") == "setup":
            raise OSError("no such folder")
        self.broken = config.get("broken")

    def ready(self) -> bool:
        return self.allowed.get(self.name, 0) > self.done_ones

    def step(self) -> dict[str, Any]:
        if self.broken:
            raise OSError("no such file")
        self.done_ones += 1
        return {"value": self.done_ones, "done": self.done_ones == 3}

    def cleanup(self) -> None:
        self.stopped.append(self.name)


class Allow(tune.Callback):
    """Lets trials go on one after the other, the last one first; counts how many are under way."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.order, self.steps = names, [], 0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.steps += 1
        if self.steps == 20:
            Waiting.allowed[self.names[-1]] = 3
        elif self.steps > 40:
            Waiting.allowed.update(dict.fromkeys(self.names, 3))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.order.append(trial.config["name"])


def test_trials_that_wait_block_nobody(ray: None, tmp_path: Path) -> None:
    names = [f"w{i}" for i in range(12)]
    Waiting.allowed, Waiting.stopped = {}, []
    allow = Allow(names)
    with in_process_trials(12):
        found = tune.run(
            Waiting, config={"name": tune.grid_search(names)}, storage_path=str(tmp_path), name="t", verbose=0, callbacks=[allow],
            resources_per_trial={"cpu": 0.01},
        )  # fmt: skip
    assert allow.order[0] == names[-1] and sorted(allow.order) == sorted(names)
    assert all(t.last_result["value"] == 3 for t in found.trials) and sorted(Waiting.stopped) == sorted(names)


@pytest.mark.parametrize("where", ["setup", "step"])
def test_a_trial_that_breaks_ends_alone(ray: None, tmp_path: Path, where: str) -> None:
    Waiting.allowed = {"good": 3, "bad": 3}
    broken = tune.sample_from(lambda c: where if c["name"] == "bad" else None)
    config = {"name": tune.grid_search(["bad", "good"]), "broken": broken}
    with in_process_trials(2):
        found = tune.run(
            Waiting, config=config, storage_path=str(tmp_path), name="t", verbose=0, raise_on_failed_trial=False
        )
    assert {t.config["name"]: t.status for t in found.trials} == {"bad": "ERROR", "good": "TERMINATED"}


def test_at_most_so_many_exist_at_a_time() -> None:
    manager = InProcessActorManager(2)
    started: list[Any] = []

    class Remote:
        class __ray_metadata__:
            class modified_class:
                def stop(self) -> None:
                    pass

                def get_auto_filled_metrics(self) -> dict[str, Any]:
                    return {}

    actors = [manager.add_actor(Remote, None, on_start=started.append) for _ in range(3)]
    while manager.next(0):
        pass
    assert started == actors[:2] and (manager.num_live_actors, manager.num_pending_actors) == (2, 1)
    assert manager.remove_actor(actors[0]) and not manager.remove_actor(actors[0])
    while manager.next(0):
        pass
    assert started == actors and manager.num_total_actors == 2
    manager.cleanup()
    assert manager.num_total_actors == manager.num_actor_tasks == 0 and manager.next(0) is False
