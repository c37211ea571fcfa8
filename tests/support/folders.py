"""A campaign folder as a campaign leaves it, with made-up numbers: data for the tests of the command line and the report."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.opening import made

ELEMENTS = ("stem.0.weight:0", *(f"layers.{i}.conv1.weight:0" for i in range(6)))
START = 1_780_000_000.0
TRACEBACK = """Traceback (most recent call last):
  File "trial.py", line 96, in step
    trained = self.trainer.train_epoch(epoch)
NonFiniteLoss: the training loss must stay finite, but it became nan in epoch 3 by step 50 & <lower> the learning rate."""
SPEC: dict[str, Any] = {
    "name": "made-up", "root": "runs",
    "task": {"dataset": "digits", "network": "resnet", "network_args": {"depth": 14, "width": 0.25}},
    "training": {"epochs": 12, "batch_size": 64, "optimizer": {"sgd": {"lr": {"loguniform": [0.01, 0.2]}}}},
    "search": {"sampler": "tpe", "trials": 12, "metric": "val_accuracy", "mode": "max", "and": {"parameters": "min"}},
}


def create(folder: CampaignFolder, spec: Campaign) -> None:
    """Make the folder of a new campaign, and leave it as it is before its first trial."""
    with made(folder, spec) as opened:
        opened.begin()


class Writer:
    """Writes one made-up trial."""

    def __init__(self, folder: Path, draw: random.Random, epochs: int) -> None:
        self.folder, self.draw, self.epochs = folder, draw, epochs
        self.widths = {name: 4 * 2 ** (i // 3) for i, name in enumerate(ELEMENTS)}
        self.events: list[dict[str, Any]] = []
        self.compute = 0.0

    def parameters(self) -> int:
        sizes = list(self.widths.values())
        return sum(9 * a * b for a, b in pairwise(sizes)) + 10 * sizes[-1]

    def event(self, type: str, epoch: int, **content: Any) -> None:
        time = START + 10 * epoch + 0.01 * len(self.events)
        self.events.append({"type": type, "trial": self.folder.name, "time": time, "epoch": epoch, "step": 20 * epoch, **content})

    def change(self, epoch: int, kind: str, element: str, count: int, accepted: bool = True) -> None:
        size, parameters = self.widths[element], self.parameters()
        after = size + count if kind == "grow" else size - count
        if accepted:
            self.widths[element] = after
        self.event("structural", epoch, adaptation=int(kind == "prune"), kind=kind, element=element, level="channel", count=count,
                   size_before=size, size_after=after if accepted else size, parameters_before=parameters,
                   parameters_after=self.parameters(), function_change=2.4e-7 if kind == "grow" else 0.31, predicted=0.01,
                   seconds=0.02, accepted=accepted, reason=None if accepted else "the output changed by more than 1")

    def epoch(self, epoch: int, quality: float, adapts: bool) -> None:
        if adapts and epoch in (2, 4, 6):
            for name in self.draw.sample(ELEMENTS, 4):
                self.change(epoch, "grow", name, max(1, self.widths[name] // 2))
        if adapts and epoch in (8, 10):
            for name in self.draw.sample(ELEMENTS, 3):
                self.change(epoch, "prune", name, max(1, self.widths[name] // 5), accepted=self.draw.random() > 0.1)
        flops = 320.0 * self.parameters()
        self.compute += 3 * flops * 1400
        accuracy = quality * (1 - 0.8 * 0.72**epoch) + self.draw.gauss(0, 0.004)
        metrics = {"train_loss": 2.3 * 0.75**epoch, "lr": 0.1, "val_loss": 2.3 * 0.8**epoch, "val_accuracy": accuracy,
                   "parameters": float(self.parameters()), "flops": flops, "compute": self.compute, "seconds": 1.5}
        if epoch == self.epochs:
            metrics["test_accuracy"] = accuracy - 0.008
        self.event("metrics", epoch, **metrics, widths=dict(self.widths))

    def write(self, params: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "params.json").write_text(json.dumps(params))
        (self.folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in self.events))


def campaign_folder(root: Path, trials: int = 12, epochs: int = 12, compare: bool = True, seed: int = 5) -> Path:
    """Write `root/made-up`: trials of the search (the fourth failed, the last one still running), and two to compare with."""
    folder = root / "made-up"
    folder.mkdir(parents=True)
    versions = {"coppice": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "ray": "2.60.0"}
    spec = {**SPEC, "search": {**SPEC["search"], "trials": trials}}
    lock = {"campaign": spec, "commit": "0123456789abcdef", "versions": versions}
    (folder / "campaign.lock.json").write_text(json.dumps(lock))
    draw = random.Random(seed)
    for number in range(trials):
        _searched(folder / "trials" / f"t{number:04d}", draw, epochs, number, trials)
    for label, scale, quality in (("static", 2, 0.955), ("big", 4, 0.985)) if compare else ():
        writer = Writer(folder / "trials" / label, draw, epochs)
        writer.widths = {name: scale * size for name, size in writer.widths.items()}
        writer.event("status", 0, status="started")
        for epoch in range(1, epochs + 1):
            writer.epoch(epoch, quality, adapts=False)
        writer.event("status", epochs, status="finished")
        spec = {"training": {"epochs": epochs}, "label": label}
        writer.write({"spec": spec, "params": {}, "number": None, "sampling": {}})
    return folder


def _searched(folder: Path, draw: random.Random, epochs: int, number: int, trials: int) -> None:
    params = {
        "training/optimizer/sgd/lr": draw.uniform(0.01, 0.2),
        "adaptations/0/grow/when": draw.choice(["periodic", "plateau"]),
        "adaptations/0/grow/where": draw.choice(["all", "round_robin", "best_gain"]),
        "adaptations/0/grow/how": draw.choice(["random", "net2wider", "gradmax"]),
        "adaptations/1/prune/how": draw.choice(["magnitude", "slimming"]),
    }
    writer = Writer(folder, draw, epochs)
    writer.event("status", 0, status="started")
    if number % 4 == 1:
        writer.event("skipped", 2, adaptation=0, reason="nothing to grow: amount 0.01 over 7 elements rounds to 0")
    last = 3 if number == 3 else epochs // 2 if number == trials - 1 else epochs
    for epoch in range(1, last + 1):
        writer.epoch(epoch, 0.93 + 0.05 * draw.random(), adapts=True)
    if number == 3:
        writer.event("status", 3, status="failed", error="NonFiniteLoss: nan", traceback=TRACEBACK)
    elif last == epochs:
        writer.event("status", epochs, status="finished")
    writer.write({"spec": {"training": {"epochs": epochs}, "label": None}, "params": params, "number": number, "sampling": {}})
