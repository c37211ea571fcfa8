"""A trial body that shows what was lost or done twice, and starts without PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import attempts as fence
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder

RAN = "ran.jsonl"
"""What every attempt has done, in the trial's folder: nobody cuts off lines that others wrote."""


class Chained:
    """Each epoch's accuracy depends on all epochs before; `sleep_s` is how long one takes."""

    def __init__(self, spec: TrialSpec, folder: Path) -> None:
        self.spec, self.folder = spec, TrialFolder(folder)
        self.saved = folder / "state.json"
        state = json.loads(self.saved.read_bytes()) if self.saved.exists() else {"epoch": 0, "chain": str(spec.seed)}
        self.epoch, self.chain = int(state["epoch"]), str(state["chain"])
        self.folder.truncate_events(self.epoch if self.epoch else -1)
        self._event("status", status="resumed" if self.epoch else "started")

    @classmethod
    def open(cls, spec: TrialSpec, folder: Path) -> Chained:
        return cls(spec, folder)

    @property
    def done(self) -> bool:
        return self.epoch >= self.spec.training.epochs

    def step(self) -> dict[str, float]:
        arguments = self.spec.task.network_args
        self._ran("begin")
        time.sleep(float(arguments.get("sleep_s", 0)))
        self._ran("end")
        self.epoch += 1
        self.chain = link(self.chain, self.epoch, arguments["x"])
        metrics = {"epoch": float(self.epoch), "val_accuracy": accuracy(self.chain), "val_loss": 0.0,
                   "parameters": 1.0, "flops": 1.0, "compute": float(self.epoch), "seconds": 0.0}
        self._event("metrics", **metrics)
        fence.check(self.folder.path)
        write_json(self.saved, {"epoch": self.epoch, "chain": self.chain})
        return metrics

    def close(self) -> None:
        self._event("status", status="finished")

    def _ran(self, what: str) -> None:
        line = {"what": what, "epoch": self.epoch + 1, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time(),
                "job": os.environ.get("SLURM_JOB_ID", ""), "restarts": os.environ.get("SLURM_RESTART_COUNT", "0")}
        with open(self.folder.path / RAN, "a") as file:
            file.write(json.dumps(line) + "\n")

    def _event(self, kind: str, **content: Any) -> None:
        head = {"type": kind, "trial": self.folder.name, "time": time.time(), "epoch": self.epoch, "step": self.epoch}
        self.folder.append_event({**head, **content})


def link(chain: str, epoch: int, x: float) -> str:
    """The state after an epoch."""
    return hashlib.sha256(f"{chain} {epoch} {x}".encode()).hexdigest()


def accuracy(chain: str) -> float:
    """Between 0 and 1."""
    return int(chain[:12], 16) / 16**12


def anything(**arguments: Any) -> Any:
    """Stands for a network in campaign files: takes any arguments, and is never trained."""
    from torch.nn import Identity

    return Identity()
