"""Cheap trial bodies for tests of campaigns: no network is trained."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.trial.trial import Trial

GLOBAL: list[str] = []
"""Something that a module keeps: must be empty in every trial."""


class Quadratic:
    """Reports accuracy 1 - (x - 0.3)^2 - 0.5 / epoch; resumes from a JSON checkpoint; does as `network_args` say."""

    def __init__(self, spec: TrialSpec, folder: Path) -> None:
        self.spec = spec
        self.arguments = spec.task.network_args
        self.folder = TrialFolder(folder)
        self.checkpoint = self.folder.path / "state.json"
        self.epoch = json.loads(self.checkpoint.read_bytes())["epoch"] if self.checkpoint.exists() else 0
        self._event("status", status="resumed" if self.epoch else "started")

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> Quadratic:
        """Takes back the epochs after its checkpoint: it may have been killed between the two."""
        state = folder / "state.json"
        TrialFolder(folder).truncate_events(json.loads(state.read_bytes())["epoch"] if state.exists() else -1)
        return cls(spec, folder)

    @property
    def done(self) -> bool:
        return self.epoch >= self.spec.training.epochs

    def step(self) -> dict[str, float]:
        self.epoch += 1
        self._misbehave()
        x, width = float(self.arguments.get("x", 0.0)), float(self.arguments.get("width", 1))
        accuracy = 1 - (x - 0.3) ** 2 - 0.5 / self.epoch
        if self.arguments.get("nan"):
            accuracy = float("nan")
        metrics = {"epoch": float(self.epoch), "val_accuracy": accuracy, "val_loss": -accuracy, "parameters": width,
                   "flops": 2 * width, "compute": width * self.epoch, "seconds": 0.0}
        self._event("metrics", **metrics)
        write_json(self.checkpoint, {"epoch": self.epoch})
        return metrics

    def _misbehave(self) -> None:
        time.sleep(self.arguments.get("sleep_s", 0))
        if self.epoch > 1 and self._number() >= self.arguments.get("hold", float("inf")):
            while not (self.folder.path.parent / "go").exists():  # under way until there is this file beside the trials
                time.sleep(0.05)
        if self.arguments.get("fail") == self.epoch:
            raise ValueError("this trial was told to fail")
        if self.arguments.get("die") == self.epoch and not (self.folder.path / "died").exists():
            (self.folder.path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.arguments.get("die_always"):
            os.kill(os.getpid(), signal.SIGKILL)

    def _number(self) -> int:
        return int(self.folder.name[1:]) if self.folder.name[1:].isdigit() else -1

    def close(self) -> None:
        self._event("status", status="finished")

    def _event(self, kind: str, **content: Any) -> None:
        self.folder.append_event(
            {"type": kind, "trial": self.folder.name, "time": time.time(), "epoch": self.epoch, "step": self.epoch, **content})


class Vandal(Quadratic):
    """Writes down the process as it finds it, then changes everything it can."""

    def step(self) -> dict[str, float]:
        write_json(self.folder.path / "found.json", process_state())
        metrics = super().step()
        wreck(self)
        return metrics


def process_state() -> dict[str, Any]:
    return {
        "pid": os.getpid(), "cwd": os.getcwd(), "environment": dict(os.environ), "path": sys.path,
        "umask": os.umask(os.umask(0o22)),
        "filters": repr(warnings.filters), "dtype": str(torch.get_default_dtype()), "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(), "deterministic": torch.are_deterministic_algorithms_enabled(),
        "device": str(torch.get_default_device()), "precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(), "level": logging.getLogger().level, "handlers": len(logging.getLogger().handlers),
        "global": list(GLOBAL), "modules": sum(type(o).__name__ == "Planted" for o in __import__("gc").get_objects()),
        "open_files": sorted(os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd")
                             if os.path.exists(f"/proc/self/fd/{f}") and "trials" in os.readlink(f"/proc/self/fd/{f}")),
        "random": random.random(), "numpy": float(np.random.rand()), "torch": float(torch.rand(())),
    }


class Planted(torch.nn.Linear):
    """A network that must not outlive its trial."""


def wreck(body: Any) -> None:
    body.network = Planted(4, 4)
    body.network.cycle = [body]
    os.chdir(body.folder.path)
    os.environ["LEFT_BEHIND"] = body.folder.name
    os.environ.pop("HOME", None)
    os.umask(0o77)
    sys.path.insert(0, "/nowhere")
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.autograd.set_detect_anomaly(True)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    GLOBAL.append(body.folder.name)


def anything(**arguments: Any) -> torch.nn.Module:
    """Stands for a network in campaign files whose body builds none: takes any arguments."""
    return torch.nn.Identity()


class FailsOnTheLastRank(Trial):
    """A trial that goes wrong in its second epoch, but only on one rank."""

    def step(self) -> dict[str, float]:
        if self.epoch == 1 and self.ranks.rank == self.ranks.size - 1:
            raise ZeroDivisionError("only here")
        return super().step()


class LooksForTheWrapper(Trial):
    """After each epoch a backward pass of its own must give this rank's own gradients."""

    def step(self) -> dict[str, float]:
        metrics = super().step()
        module = self.network.module.eval()
        inputs = torch.full((4, *self.dataset.input_shape), 0.1 * (self.ranks.rank + 1))
        expected = torch.autograd.grad(module(inputs).square().sum(), list(module.parameters()))
        module.zero_grad()
        module(inputs).square().sum().backward()
        for gradient, parameter in zip(expected, module.parameters(), strict=True):
            assert parameter.grad is not None and torch.equal(gradient, parameter.grad), "the gradient is not this rank's own"
        return metrics


class Unhurried(Trial):
    """Takes as many seconds more for an epoch as the environment says."""

    def step(self) -> dict[str, float]:
        time.sleep(float(os.environ.get("UNHURRIED_S", "0")))
        return super().step()


class WaitsForTheFile(Trial):
    """A trial that waits after its first epoch, on every rank, until there is a file `go` in its folder."""

    place: Path

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> WaitsForTheFile:
        trial = super().open(spec, folder)
        trial.place = folder / "go"
        return trial

    def step(self) -> dict[str, float]:
        while self.epoch and not self.place.exists():
            time.sleep(0.05)
        return super().step()
