"""All growth and all pruning methods on one task, at an equal budget: the same data, epochs, moments and amounts.

    python benchmarks/methods.py    # digits of scikit-learn, 3 seeds, about half an hour on one core
    python benchmarks/methods.py --methods gradmax,random --seeds 1
    python benchmarks/methods.py --dataset cifar10 --data-dir DATA --limit 5000

Growth starts from `small`, a network of half the width, and may not exceed the parameters of `big`; pruning starts from `big` and
may not go below those of `small`; regrowing of connections starts from `big`. Both controls are trained without any change.
A method that needs a network of its own kind (an MLP, a graph of neurons) is compared within a table of that kind.
Columns: test accuracy, parameters (masked weights not counted) and FLOPs of training at the end, seconds of one act of the
adaptation with all its measuring; mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coppice.methods.catalog import GROWTH, PRUNING, resolve
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.building import build_network, build_task
from coppice.orchestrator.trial.trial import Trial

EPOCHS = 14
GROW_WHEN = {"periodic": {"every": 2, "from": 2, "until": 8}}
PRUNE_WHEN = {"periodic": {"every": 2, "from": 4, "until": 10}}
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "resnet": ({"network": "resnet", "network_args": {"depth": 8, "width": 0.25}},
               {"network": "resnet", "network_args": {"depth": 8, "width": 0.5}}),
    "mlp": ({"network": "mlp", "network_args": {"hidden": [12, 12]}}, {"network": "mlp", "network_args": {"hidden": [24, 24]}}),
    "dag": ({"network": "dag", "network_args": {"hidden": [12, 12]}}, {"network": "dag", "network_args": {"hidden": [24, 24]}}),
}  # fmt: skip
"""Kind -> small and big network."""
OWN_NETWORK = {
    "residual_fitting": "mlp", "obs": "mlp", "half_layer": "dag", "cascade": "dag", "one_synapse": "dag", "dead_neurons": "dag",
}  # fmt: skip
"""Methods that need another network than the residual one."""
SPARSE = {"prune": {"when": {"periodic": {"every": 50, "from": 1}}, "where": "erk", "how": "random_weights", "amount": 0.74}}
"""What makes the network sparse before connections are grown."""
LEARNED = ("size_weight", "controller")
"""Methods that say themselves when."""
ADVISED = (*LEARNED, "residual_fitting")
"""Methods that say themselves how many."""
HOW: dict[tuple[str, str], dict[str, Any]] = {("prune", "size_weight"): {"target": 0.5}}
"""Arguments where the defaults would not do what is compared."""


@dataclass
class Row:
    """One method, one figure for each seed."""

    name: str
    kind: str
    network: str
    accuracy: list[float] = field(default_factory=list)
    parameters: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    skipped: str = ""

    def cells(self) -> list[str]:
        if not self.accuracy:
            return [self.name, self.kind, "-", "-", "-", "-", "-", self.skipped]
        accuracy = [100 * a for a in self.accuracy]
        return [
            self.name, self.kind, _spread(accuracy, ".2f"), _spread(self.parameters, ",.0f"),
            _spread([f / 1e9 for f in self.flops], ".1f"), _spread(self.seconds, ".2f"), _spread(self.events, ".0f"),
            self.skipped,
        ]  # fmt: skip


def _spread(values: list[Any], form: str) -> str:
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{form}} ± {spread:{form}}"


def adaptations(kind: str, name: str, least: float, most: float) -> list[dict[str, Any]]:
    """The entries of a campaign file with which a method takes part."""
    levels = resolve(kind, name).levels
    one_by_one = set(levels) <= {"insertion", "layer", "block"}
    weights = "weight" in levels
    when: Any = GROW_WHEN if kind == "grow" else PRUNE_WHEN
    where = "round_robin" if one_by_one else "all" if kind == "grow" else "global"
    amount: Any = 1 if one_by_one else {"seed": 0.25} if kind == "grow" else 0.2
    if weights:
        amount = 0.1 if kind == "grow" else 0.3
    if name in LEARNED:
        when, where = {"learned": {"from": 2, "until": 10}}, "all"
    if name in ADVISED:
        amount = "advised"
    limit = {} if weights and kind == "grow" else {"parameters": most if kind == "grow" else least}
    how = {name: HOW.get((kind, name), {})}
    entry: dict[str, Any] = {"when": when, "where": where, "how": how, "amount": amount, "limit": limit}
    if kind == "grow":
        return [*([SPARSE] if weights else []), {"grow": entry}]
    return [{"prune": {**entry, "minimum": 2}}]


def run(row: Row, task: dict[str, Any], entries: list[dict[str, Any]], seed: int) -> None:
    training = {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}, "lr_schedule": "cosine"}
    spec = TrialSpec.model_validate({"task": task, "training": training, "adaptations": entries, "seed": seed})
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial.open(spec, Path(folder) / "trial")
        for adaptation in trial.adaptations.all:
            adaptation.act = timed(adaptation.act, spent)  # type: ignore[method-assign]
        metrics = trial.run()
        row.events.append(len(trial.network.lineage))
        row.skipped = _first_reason(Path(folder) / "trial")
    row.accuracy.append(metrics.get("test_accuracy", metrics["val_accuracy"]))
    row.parameters.append(metrics["parameters"])
    row.flops.append(metrics["compute"])
    row.seconds += [statistics.mean(spent)] if spent else []


def timed(act: Any, spent: list[float]) -> Any:
    def timing(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = act(*args, **kwargs)
        spent.append(time.perf_counter() - began)
        return result

    return timing


def _first_reason(folder: Path) -> str:
    reasons = [e["reason"] for e in read_events(folder / "events.jsonl") if e["type"] == "skipped"]
    return reasons[0][:60] if reasons else ""


def parameters_of(task: dict[str, Any]) -> float:
    spec = TrialSpec.model_validate({"task": task, "training": {"epochs": 1}})
    return float(build_network(spec, build_task(spec)[0]).num_parameters())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--limit", type=int, default=None, help="training samples")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="", help="names with commas between; all when left out")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    names = set(filter(None, options.methods.split(",")))
    base = {"dataset": options.dataset, "dataset_args": {"limit_train": options.limit} if options.limit else {}}
    if options.data_dir:
        base["data_dir"] = options.data_dir
    print(f"{options.dataset}, {EPOCHS} epochs, {options.seeds} seeds; mean ± standard deviation")
    head = ["method", "kind", "test accuracy %", "parameters", "training GFLOPs", "s an act", "events", "not done (first reason)"]
    for kind_of_network, (small, big) in NETWORKS.items():
        tasks = {"small": {**base, **small}, "big": {**base, **big}}
        least, most = (parameters_of(tasks[name]) for name in ("small", "big"))
        methods = [("grow", n) for n in GROWTH] + [("prune", n) for n in PRUNING]
        chosen = [(k, n) for k, n in methods if OWN_NETWORK.get(n, "resnet") == kind_of_network and (not names or n in names)]
        if not chosen:
            continue
        print(f"\n{kind_of_network}: small {small}, big {big}\n" + " | ".join(head), flush=True)
        controls = [(Row(n, "", kind_of_network), tasks[n], []) for n in ("small", "big")]
        rows = [
            (Row(n, k, kind_of_network), tasks["small" if k == "grow" and "weight" not in resolve(k, n).levels else "big"],
             adaptations(k, n, least, most))
            for k, n in chosen
        ]  # fmt: skip
        for row, task, entries in [*controls, *rows]:
            for seed in range(options.seeds):
                try:
                    run(row, task, entries, seed)
                except Exception as error:  # one method that fails must not end the table; it is shown as failed
                    row.skipped = f"FAILED: {type(error).__name__}: {error}"
            print(" | ".join(row.cells()), flush=True)


if __name__ == "__main__":
    main()
