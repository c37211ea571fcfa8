"""The one trainable of all campaigns whose trials are Ray workers: runs the body of a trial, keeps no state between trials."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.process_state import ProcessState
from coppice.orchestrator.placement.ray_ranks import RankActors
from coppice.orchestrator.placement.runner import Runner
from coppice.orchestrator.trial.errors import RanksLost

POINTER = "checkpoint.json"
LOOK_EVERY_S, GRACE_S = 1.0, 15.0
"""How often a worker looks whether its trial was cancelled, and how long the trial then has to end its epoch."""
CANCELLED = 75
"""Exit code of a worker that ends because its trial was cancelled; the next worker that is given the trial writes that down."""


class LocalTrainable(tune.Trainable):
    """Runs bodies for Ray Tune. The configuration names the trial's folder, its body and the metrics that must be reported."""

    def setup(self, config: dict[str, Any]) -> None:
        """Remember the clean process and take the first trial."""
        self._process = ProcessState()
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._others = RankActors(config, config["bundles"])
        self._runner = Runner(config, self._process.seed, self._others.ranks)

    def _end(self) -> None:
        """Keep what a trial that was stopped or interrupted has reached, and only then let go of it."""
        try:
            self._runner.save()
        except Exception as error:  # a full disk: the trial goes on from the checkpoint before
            print(f"what a trial had reached could not be kept: {error}", file=sys.stderr)
        self._runner.end()
        self._others.leave()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial, with nothing left of the one before."""
        self._end()
        self._process.restore()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Let go of the trial when the worker ends."""
        self._end()

    def step(self) -> dict[str, Any]:
        """One epoch. Where another rank is lost, all start again from the newest checkpoint."""
        try:
            with _watched(TrialFolder(Path(self.config["folder"])).cancelled):
                return self._runner.step()
        except RanksLost as error:
            raise RuntimeError(str(error)) from error

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Give Ray a pointer to the trial's folder: no bytes are copied."""
        Path(checkpoint_dir, POINTER).write_text(json.dumps({"trial": self.config["folder"]}))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to do: the body goes on from its own newest checkpoint."""


@contextlib.contextmanager
def _watched(cancelled: Path) -> Iterator[None]:
    """An epoch that lasts long does not keep a cancelled trial alive: its process ends, as if it had been killed."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            if cancelled.exists() and not over.wait(GRACE_S):
                os._exit(CANCELLED)

    threading.Thread(target=watch, name="cancelled", daemon=True).start()
    try:
        yield
    finally:
        over.set()
