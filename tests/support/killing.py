"""Campaigns that are killed again and again, and what must be the same in the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.events import FINAL, read_events, state_of
from tests.support.waiting import LIMIT_S

NETWORKS = {"mlp": {"hidden": [16]}, "resnet": {"depth": 8, "width": 0.25}}
SMALL = {"limit_train": 600}
Kind = tuple[str, str, str]
"""Trial scheduler, sampler and network of a campaign."""
FLEETING = ("time", "seconds", "step_s")
"""Numbers of an event that no two runs share."""
LASTING = ("metrics", "structural", "skipped")
"""Events that all runs share."""


def fingerprint(folder: Path) -> dict[str, Any]:
    """What a campaign has found: for each trial its values, how it ended, every epoch, every change, and the last tensors."""
    return {params.parent.name: _trial(params.parent) for params in sorted(folder.glob("trials/*/params.json"))}


def _trial(folder: Path) -> dict[str, Any]:
    events = read_events(folder / "events.jsonl")
    state = state_of(events)
    told = [{k: v for k, v in e.items() if k not in FLEETING} for e in events if e["type"] in LASTING]
    checkpoints = available(folder / "checkpoints") if state == "finished" else []
    tensors = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for c in checkpoints[-1:] for f in c.glob("*.safetensors")}
    params = json.loads((folder / "params.json").read_bytes())["params"]
    return {"params": params, "state": state, "events": told, "tensors": tensors}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two fingerprints differ, in a few words each."""
    found = [f"{name}: only in one" for name in sorted(set(one) ^ set(other))]
    for name in sorted(set(one) & set(other)):
        for part in ("params", "state", "events", "tensors"):
            if one[name][part] != other[name][part]:
                found.append(f"{name}: {part} ({_brief(one[name], part)} against {_brief(other[name], part)})")
    return found


def _brief(trial: Mapping[str, Any], part: str) -> str:
    return f"{len(trial['events'])} events" if part == "events" else str(trial[part])[:60]


def descendants(pid: int) -> dict[int, str]:
    """Command lines of a process and all that it has started, directly or not."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            raw = stat.read_text()
            parents[int(stat.parent.name)] = int(raw[raw.rindex(")") + 2 :].split()[1])
    tree = [pid]
    for one in tree:
        tree += [child for child, parent in parents.items() if parent == one]
    return {one: _command(one) for one in tree}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


VICTIMS: dict[str, Callable[[int, str, int], bool]] = {
    "driver": lambda pid, command, driver: pid == driver,
    "worker": lambda pid, command, driver: command.startswith("ray::"),
    "raylet": lambda pid, command, driver: "/raylet/raylet" in command,
    "gcs": lambda pid, command, driver: "gcs_server" in command,
    "all": lambda pid, command, driver: True,
    "all, in a checkpoint": lambda pid, command, driver: True,
}
"""What is killed, by (process, its command line, the driver's process)."""


@dataclass
class Killed:
    """A campaign in processes of its own.

    Attributes:
        file: its campaign file.
        folder: of the campaign.
        log: what its drivers print.
        hung: whether it had to be ended, since nothing had happened in it for `LIMIT_S`.
    """

    file: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    hung: bool = False

    @property
    def log(self) -> Path:
        """What its drivers print."""
        return self.file.with_suffix(".log")

    @contextlib.contextmanager
    def going(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run or resume it; at the end nothing of it is left."""
        there = (self.folder / "campaign.lock.json").exists()
        what = ["resume", str(self.folder)] if there else ["run", str(self.file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        with open(self.log, "ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "coppice", *what], env=environment, stdout=log, stderr=log)
        seen: dict[int, str] = {}
        try:
            yield process
        finally:
            seen |= descendants(process.pid)
            end(seen)
            process.wait()

    def epochs(self) -> int:
        """Epochs that its trials have reported so far."""
        return sum(p.read_bytes().count(b'"type":"metrics"') for p in self.folder.glob("trials/*/events.jsonl"))

    def until(self, condition: Callable[[], object], process: subprocess.Popen[bytes]) -> bool:
        """Wait until the condition holds or the process has ended; whether the process still runs."""
        seen, deadline = self._signs_of_life(), time.monotonic() + LIMIT_S
        while process.poll() is None and not condition():
            if time.monotonic() > deadline:
                before, seen, deadline = seen, self._signs_of_life(), time.monotonic() + LIMIT_S
                if seen == before:
                    self.hung = True
                    return False
            time.sleep(0.005)
        return process.poll() is None

    def _signs_of_life(self) -> tuple[int, int]:
        return self.epochs(), len(list(self.folder.glob("trials/*")))

    def kill(self, victim: str, epochs: int, delay_s: float) -> bool:
        """Run it, and kill `victim` `delay_s` after so many epochs in all; false where the campaign had ended before.

        What is not killed with the driver has time to end by itself: what goes on without a worker goes on.
        """
        with self.going() as process:
            self.until(lambda: self.epochs() >= epochs and any(self.folder.glob("trials/t*")), process)
            time.sleep(delay_s)
            if victim.endswith("checkpoint"):
                self.until(lambda: any(self.folder.glob("trials/*/checkpoints/.*.tmp")), process)
            chosen = [p for p, c in descendants(process.pid).items() if VICTIMS[victim](p, c, process.pid)]
            if process.poll() is not None or not chosen:
                return False
            tree = descendants(process.pid)
            for pid in chosen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.until(lambda: False, process)
            end({} if victim == "driver" else tree)
            return True

    def finish(self) -> Killed:
        """Go on until it ends.

        Raises:
            AssertionError: it ended before its trials.
        """
        with self.going() as process:
            self.until(lambda: False, process)
        states = [trial["state"] for trial in fingerprint(self.folder).values()]
        assert self.hung or set(states) <= set(FINAL), f"{states}\n{self.log.read_text(errors='replace')[-2000:]}"
        return self

    def run_through(self) -> Path:
        """Its folder, once it has come to its end without a kill.

        Raises:
            AssertionError: it did not.
        """
        assert not self.finish().hung, f"{self.folder} must end for others to be compared with it, but hangs"
        return self.folder


def end(tree: Mapping[int, str]) -> None:
    """Kill the processes of a tree that are still the same."""
    for pid, command in tree.items():
        if command and _command(pid) == command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def local_campaign(root: Path, name: str, kind: Kind, size: tuple[int, int]) -> Killed:
    """A small campaign that grows its networks, one trial after the other; `size` is the number of trials and of epochs."""
    (scheduler, sampler, network), (trials, epochs) = kind, size
    asha = {"asha": {"max_epochs": epochs, "reduction_factor": 2}}
    optimizer = {"sgd": {"lr": {"loguniform": [0.001, 0.3]}, "momentum": 0.9}}
    grow = {"when": {"periodic": {"every": 2}}, "how": "random", "amount": 0.25, "limit": {"width": 2}}
    content = {
        "name": name,
        "root": str(root),
        "task": {"dataset": "digits", "dataset_args": SMALL, "network": network, "network_args": NETWORKS[network]},
        "training": {"epochs": epochs, "batch_size": 64, "optimizer": optimizer},
        "adaptations": [{"grow": grow}],
        "search": {
            "sampler": sampler, "trials": trials, "metric": "val_accuracy", "mode": "max", "max_concurrent": 1,
            "scheduler": asha if scheduler == "asha" else "none"},
        "placement": {"local": {"cpus": 1}},
    }  # fmt: skip
    file = root / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return Killed(file, root / name)
