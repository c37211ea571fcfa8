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
from functools import partial
from pathlib import Path

from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.seeds import derive, generator
from coppice.orchestrator.tasks.batches import statistics_batches
from coppice.orchestrator.tasks.metrics import evaluate
from coppice.orchestrator.trial.adaptations import Adaptations, sizes
from coppice.orchestrator.trial.building import build_network, build_task, count_flops, restore_network
from coppice.orchestrator.trial.checkpointing import CheckpointWriter, NewestCheckpoint, newest_checkpoint, restore
from coppice.orchestrator.trial.data_parallel import require_equal
from coppice.orchestrator.trial.events import EventWriter
from coppice.orchestrator.trial.process_group import current
from coppice.orchestrator.trial.trainer import Trainer, precision


class Trial:
    """A trial in a folder. Use `open`, then `step` until `done`, then `close`; or `run`.

    Attributes:
        spec: what the trial is.
        ranks: the processes that train it together.
        dataset: what it is trained, searched and tested on.
        adaptations: what grows and prunes it.
        history: the metrics of each epoch.
        compute: FLOPs of all training steps so far, forward and backward.
    """

    def __init__(
        self, spec: TrialSpec, trainer: Trainer, adaptations: Adaptations, checkpoints: CheckpointWriter, events: EventWriter
    ) -> None:
        self.spec = spec
        self.trainer = trainer
        self.adaptations = adaptations
        self.ranks = trainer.ranks
        self.dataset, self.loss = trainer.dataset, trainer.loss
        self.history: list[dict[str, float]] = []
        self.compute = 0.0
        self._checkpoints = checkpoints
        self._events = events

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path, clock: Callable[[], float] = time.time) -> Trial:
        """Start the trial, or go on from its newest valid checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none is valid.
        """
        ranks, files = current(), TrialFolder(folder)
        events = EventWriter(files, ranks, clock)
        adaptations = Adaptations(spec.adaptations, spec.training.epochs, events.write)
        dataset, loss = build_task(spec)
        newest = newest_checkpoint(files.checkpoints, ranks)
        network = build_network(spec, dataset, folder) if newest is None else restore_network(newest.content, dataset, spec)
        adaptations.begin(network, fresh=newest is None)
        trainer = Trainer(network, dataset, loss, spec.training, spec.seed, ranks)
        trainer.followers += adaptations.companions.values()
        trial = cls(spec, trainer, adaptations, CheckpointWriter(files, events), events)
        trial._resume(newest) if newest else trial._start()
        require_equal(ranks, network.module, "at the start")
        return trial

    def _start(self) -> None:
        self._events.forget_after(-1)
        self._events.write_status("started")
        self._adapt(0, self._context(0), {}, initially=True)

    def _resume(self, newest: NewestCheckpoint) -> None:
        restore(self.trainer, newest.content)
        state = newest.content.state
        self._events.epoch, self._events.num_steps, self.compute = state["epoch"], state["step"], state["compute"]
        self.history = list(state["history"])
        self.adaptations.load(state, newest.content.tensors)
        problem = self._events.forget_after(self.epoch)
        restored = {"restored": problem} if problem else {}
        self._events.write_status("resumed", checkpoint=newest.path.name, damaged=newest.damaged, **restored)

    @property
    def network(self) -> Network:
        """The network as it is now."""
        return self.trainer.network

    @property
    def epoch(self) -> int:
        """The last epoch that was trained."""
        return self._events.epoch

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
        began, epoch = time.monotonic(), self.epoch + 1
        context = self._context(epoch)
        metrics = {"epoch": float(epoch), **self._train(epoch, context), **self._evaluate("val")}
        if self._adapt(epoch, context, metrics):
            metrics |= self._evaluate("val")
        metrics |= self._costs()
        if epoch == self.spec.training.epochs:
            self.adaptations.report_unfinished(epoch)
            if self.dataset.test is not None:
                metrics |= self._evaluate("test")
        metrics["seconds"] = time.monotonic() - began
        require_equal(self.ranks, self.network.module, f"after epoch {epoch}")
        metrics = json.loads(self.ranks.agree(json.dumps(metrics).encode()))
        self._events.epoch = epoch
        self.history.append(metrics)
        self._events.write("metrics", **metrics, widths=sizes(self.network))
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
        self._checkpoints.settle()
        if self.epoch and not self._checkpoints.has(self.epoch):
            self._checkpoint()
            self._checkpoints.settle()

    def close(self) -> None:
        """Wait for the last checkpoint, and say in the events that the trial has finished, when it has."""
        self._checkpoints.close()
        if self.done:
            self._events.write_status("finished")

    def _train(self, epoch: int, context: Context) -> dict[str, float]:
        """Train for one epoch; the loss on what was trained, and the learning rate."""
        flops = count_flops(self.network)
        companions = list(self.adaptations.companions.values())
        after_step = partial(self.adaptations.after_step, epoch, context, self.trainer.followers)
        trained = self.trainer.train_epoch(epoch, companions, after_step)
        self._events.num_steps += trained.steps
        self.compute += 3.0 * flops * trained.samples
        return {"train_loss": trained.loss, "lr": trained.lr}

    def _context(self, epoch: int) -> Context:
        seed, size = derive(self.spec.seed, "statistics"), self.spec.training.batch_size
        batches = partial(statistics_batches, self.dataset, size, seed, epoch)
        draws = generator(self.spec.seed, "adapt", epoch)
        return Context(self.network, batches, self.loss, draws, self.trainer.optimizer, ranks=self.ranks)

    def _adapt(self, epoch: int, context: Context, metrics: dict[str, float], initially: bool = False) -> bool:
        """Let every adaptation that is due act; whether the network changed."""

        def history() -> list[dict[str, float]]:
            return [*self.history, metrics | self._costs()]

        return self.adaptations.after_epoch(epoch, context, self.trainer.followers, history, initially)

    def _evaluate(self, split: str) -> dict[str, float]:
        with precision(self.spec.training, self.network.device()):
            metrics = evaluate(self.trainer.evaluated, self.dataset, split, self.loss, ranks=self.ranks)
        return {f"{split}_{name}": value for name, value in metrics.items()}

    def _costs(self) -> dict[str, float]:
        """What the network costs as it is now, and what was computed so far."""
        parameters, flops = float(self.network.num_parameters()), count_flops(self.network)
        return {"parameters": parameters, "flops": flops, "compute": self.compute}

    def _checkpoint(self) -> None:
        if self.ranks.rank:
            return
        done_so_far = {"epoch": self.epoch, "step": self._events.num_steps, "compute": self.compute, "history": self.history}
        state = {**done_so_far, **self.adaptations.state()}
        self._checkpoints.write(self.epoch, self.trainer, state, self.adaptations.tensors())
        if self.done:
            self._checkpoints.settle()
