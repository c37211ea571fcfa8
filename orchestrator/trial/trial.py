"""One trial: trains, evaluates, grows and prunes, and can be resumed at any checkpoint.

Plain Python: needs neither Ray nor Slurm, and is the same code wherever it is placed. All randomness is derived from the
seed and the epoch, so a trial that is stopped and resumed ends bit-identical to one that ran through.

On several GPUs the same code runs once for each (a rank), in step: every rank trains on its share of each batch and measures on
its share of the statistics, all carry out what rank 0 plans, and rank 0 alone writes into the trial's folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.surgery.optimizer_state import load_optimizer_state
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import attempts as fence
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.seeds import derive, generator
from coppice.orchestrator.tasks.batches import statistics_batches
from coppice.orchestrator.tasks.metrics import evaluate
from coppice.orchestrator.trial.adaptations import Adaptations
from coppice.orchestrator.trial.building import build_network, build_task, count_flops, restore_network
from coppice.orchestrator.trial.checkpointing import Staging, capture
from coppice.orchestrator.trial.data_parallel import require_equal
from coppice.orchestrator.trial.process_group import current
from coppice.orchestrator.trial.trainer import Trainer, precision

KEPT_CHECKPOINTS = 2


class Trial:
    """A trial in a folder. Use `open`, then `step` until `done`, then `close`; or `run`."""

    def __init__(self, spec: TrialSpec, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.spec = spec
        self.folder = TrialFolder(folder)
        self.clock = clock
        self.ranks = current()
        self.epoch = 0
        self.num_steps = 0
        self.compute = 0.0
        self.history: list[dict[str, float]] = []
        self.acting = Adaptations(spec.adaptations, spec.training.epochs, self._event)
        self.dataset, self.loss = build_task(spec)
        self._writer = ThreadPoolExecutor(1)
        self._staging = Staging()
        self._writing: Future[Path] | None = None

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path, clock: Callable[[], float] = time.time) -> Trial:
        """Start the trial, or go on from its newest valid checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none is valid.
        """
        trial = cls(spec, folder, clock)
        found = trial._newest()
        if found is None:
            trial._begin(build_network(spec, trial.dataset), fresh=True)
            trial._forget(-1)
            trial._event("status", status="started")
            trial._adapt(0, trial._context(0), {}, initially=True)
        else:
            path, checkpoint, problems = found
            trial._resume(checkpoint)
            trial._forget(trial.epoch)
            trial._event("status", status="resumed", checkpoint=path.name, damaged=problems)
        require_equal(trial.ranks, trial.network.module, "at the start")
        return trial

    def _newest(self) -> tuple[Path, checkpoints.Checkpoint, list[str]] | None:
        """The newest valid checkpoint; all ranks take the one that rank 0 finds."""
        found = checkpoints.latest(self.folder.checkpoints) if self.ranks.rank == 0 else None
        name = self.ranks.agree(found[0].name.encode() if found else b"").decode()
        if self.ranks.rank and name:
            path = self.folder.checkpoints / name
            return path, checkpoints.read(path), []
        return found

    def _forget(self, epoch: int) -> None:
        """What is in the events of later epochs will be done again."""
        if self.ranks.rank == 0:
            self.folder.truncate_events(epoch)

    def _begin(self, network: Network, fresh: bool = False) -> None:
        self.acting.begin(network, fresh)
        self.trainer = Trainer(network, self.dataset, self.loss, self.spec.training, self.spec.seed, self.ranks)
        self.trainer.followers += self.acting.companions.values()

    def _resume(self, checkpoint: checkpoints.Checkpoint) -> None:
        state = checkpoint.state
        network = restore_network(checkpoint, self.dataset, self.spec)
        self._begin(network)
        load_optimizer_state(self.trainer.optimizer, network.module, checkpoint.optimizer, state["optimizer"])
        if self.trainer.ema is not None:
            self.trainer.ema.load_state_dict(checkpoints.under(checkpoints.AVERAGE, checkpoint.tensors))
        self.epoch, self.num_steps, self.compute = state["epoch"], state["step"], state["compute"]
        self.history = list(state["history"])
        self.acting.load(state, checkpoint.tensors)

    @property
    def network(self) -> Network:
        """The network as it is now."""
        return self.trainer.network

    @property
    def done(self) -> bool:
        """Whether all epochs are trained."""
        return self.epoch >= self.spec.training.epochs

    def step(self) -> dict[str, float]:
        """Train one epoch, evaluate, adapt, write events and (when due) a checkpoint; returns the epoch's metrics.

        Raises:
            NonFiniteLoss: the loss became NaN or infinite.
            CheckpointError: the checkpoint cannot be written.
        """
        began = self.clock()
        epoch = self.epoch + 1
        context = self._context(epoch)
        flops = self._flops()
        companions = list(self.acting.companions.values())
        after_step = partial(self.acting.after_step, epoch, context, self.trainer.followers)
        trained = self.trainer.train_epoch(epoch, companions, after_step)
        self.num_steps += trained.steps
        self.compute += 3.0 * flops * trained.samples
        metrics = {"epoch": float(epoch), "train_loss": trained.loss, "lr": trained.lr, **self._evaluate("val")}
        if self._adapt(epoch, context, metrics):
            metrics |= self._evaluate("val")
        metrics |= self._costs()
        if epoch == self.spec.training.epochs:
            self.acting.say_what_stays(epoch)
            if self.dataset.test is not None:
                metrics |= self._evaluate("test")
        metrics["seconds"] = self.clock() - began
        require_equal(self.ranks, self.network.module, f"after epoch {epoch}")
        metrics = json.loads(self.ranks.agree(json.dumps(metrics).encode()))
        self.epoch = epoch
        self.history.append(metrics)
        self._event("metrics", **metrics, widths=self._widths())
        if epoch % self.spec.training.checkpoint_every == 0 or self.done:
            self._checkpoint()
        return metrics

    def run(self) -> dict[str, float]:
        """Train all remaining epochs; returns the last metrics."""
        while not self.done:
            self.step()
        self.close()
        return self.history[-1]

    def save_now(self) -> None:
        """Have a checkpoint of where the trial is, whenever the next one would be due."""
        self._settle()
        if self.epoch and not (self.folder.checkpoints / f"{self.epoch:06d}").exists():
            self._checkpoint()
            self._settle()

    def close(self) -> None:
        """Wait for the last checkpoint, and say in the events that the trial has finished, when it has."""
        self._settle()
        self._writer.shutdown()
        if self.done:
            self._event("status", status="finished")

    def _context(self, epoch: int) -> Context:
        seed, size = derive(self.spec.seed, "statistics"), self.spec.training.batch_size
        return Context(
            self.network,
            lambda count: statistics_batches(self.dataset, size, seed, epoch, count),
            self.loss,
            generator(self.spec.seed, "adapt", epoch),
            self.trainer.optimizer,
            ranks=self.ranks,
        )

    def _adapt(self, epoch: int, context: Context, metrics: dict[str, float], initially: bool = False) -> bool:
        """Let every adaptation that is due act; whether the network changed."""

        def history() -> list[dict[str, float]]:
            return [*self.history, metrics | self._costs()]

        return self.acting.after_epoch(epoch, context, self.trainer.followers, history, initially)

    def _evaluate(self, split: str) -> dict[str, float]:
        with precision(self.spec.training, self.network.device()):
            found = evaluate(self.trainer.evaluated, self.dataset, split, self.loss, ranks=self.ranks)
        return {f"{split}_{name}": value for name, value in found.items()}

    def _costs(self) -> dict[str, float]:
        """What the network costs as it is now, and what was computed so far."""
        return {"parameters": float(self.network.num_parameters()), "flops": self._flops(), "compute": self.compute}

    def _flops(self) -> float:
        return count_flops(self.network)

    def _widths(self) -> dict[str, int]:
        return {e.name: e.size for e in self.network.elements() if e.permissible and e.moves}

    def _checkpoint(self) -> None:
        if self.ranks.rank:
            return
        self._settle()
        state = {
            "epoch": self.epoch,
            "step": self.num_steps,
            "compute": self.compute,
            "history": self.history,
            **self.acting.state(),
        }
        content = capture(self.trainer, state, self.acting.tensors(), self._staging)
        fence.check(self.folder.path)
        self._writing = self._writer.submit(checkpoints.write, self.folder.checkpoints, self.epoch, content)
        if self.done:
            self._settle()

    def _settle(self) -> None:
        """Wait for the checkpoint that is being written while training goes on.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        path = writing.result()
        checkpoints.keep_newest(self.folder.checkpoints, KEPT_CHECKPOINTS)
        self._event("checkpoint", epoch=int(path.name), path=path.name)

    def _event(self, type: str, **content: Any) -> None:
        if self.ranks.rank:
            return
        about = {"trial": self.folder.name, "time": self.clock(), "epoch": self.epoch, "step": self.num_steps}
        fence.check(self.folder.path)
        self.folder.append_event({"type": type, **about, **content})
