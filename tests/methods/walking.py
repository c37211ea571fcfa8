"""Random walks through architectures, and what a network does after it was written down: shared by two processes.

`python -m tests.methods.walking FOLDER` rebuilds every network of the folder and leaves what it does beside it.
"""

import json
import random
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, Plan, PrunePlan, RemovePlan
from coppice.methods.record.architecture import rebuild, record, tensors_of
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state
from coppice.methods.surgery.tensors import get_tensor, tied_names

Tensors = dict[str, Tensor]
OPTIMIZERS = {
    "sgd": lambda module: torch.optim.SGD(_of_rank(module, matrices=True), lr=1e-3, momentum=0.9, weight_decay=1e-4),
    "adamw": lambda module: torch.optim.AdamW(_of_rank(module, matrices=False), lr=1e-3),
}
"""They share the network, as optimizers for matrices and for the rest do."""
WEIGHTS = {"grow": 4, "shrink": 4, "insert": 2, "remove": 1, "mask": 1}


def _of_rank(module: torch.nn.Module, *, matrices: bool) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if (p.ndim > 1) == matrices]


def choices(elements: tuple[Element, ...]) -> dict[str, list[Element]]:
    """What may be done, and to which permissible elements."""
    free = [e for e in elements if e.permissible]
    units = [e for e in free if e.level in ("channel", "head", "group")]
    found = {
        "grow": [e for e in units if e.grow != "no"],
        "shrink": [e for e in units if e.shrink != "no" and e.size - e.quantum >= e.minimum],
        "insert": [e for e in free if e.level == "insertion"],
        "remove": [e for e in free if e.level in ("layer", "block")],
        "mask": [e for e in free if e.level == "weight"],
    }
    return {act: held for act, held in found.items() if held}


def draw_plan(network: Network, rng: random.Random) -> Plan:
    possible = choices(network.elements())
    act = rng.choices(list(possible), [WEIGHTS[a] for a in possible])[0]
    e = rng.choice(possible[act])
    seed = rng.randrange(2**31)
    if act == "grow":
        return GrowPlan(e.name, e.quantum * rng.randint(1, 2), seed=seed)
    if act == "shrink":
        most = min(2, (e.size - e.minimum) // e.quantum)
        return PrunePlan(e.name, tuple(sorted(rng.sample(range(e.size), e.quantum * rng.randint(1, most)))))
    if act == "remove":
        return RemovePlan(e.name)
    if act == "mask":
        shape = get_tensor(network.module, e.name).shape
        return MaskPlan({e.name: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.2})
    kind = rng.choice(e.kinds)
    image = kind.endswith("conv")
    arguments = {
        "identity": {"batch_norm": image and rng.random() < 0.5},
        "residual": {"width": rng.randint(2, 6), "batch_norm": image and rng.random() < 0.5},
        "duplicate": {"last": rng.choice(["zero", "uniform", "normal"])},
    }[kind.split("_")[0]]
    return InsertPlan(e.name, kind, arguments, seed)


def outputs(network: Network) -> list[Tensor]:
    """Every tensor that the forward returns on the example inputs, with the same random numbers everywhere."""
    torch.manual_seed(5)
    return [t for t in tree_leaves(network.module(*network.example_inputs)) if isinstance(t, Tensor)]


def step(network: Network, optimizer: torch.optim.Optimizer) -> None:
    network.module.train()
    optimizer.zero_grad()
    torch.stack([t.square().mean() for t in outputs(network)]).sum().backward()
    optimizer.step()


def state(network: Network) -> Tensors:
    return {n: get_tensor(network.module, n).detach().clone() for n in tied_names(network.module)}


def go_on(network: Network, optimizers: dict[str, torch.optim.Optimizer]) -> Tensors:
    """What the network does now, and its tensors after two steps of each optimizer, each from where it is now."""
    network.module.eval()
    found = {f"output/{i}": t.detach().clone() for i, t in enumerate(outputs(network))}
    before = state(network)
    for kind, optimizer in optimizers.items():
        for _ in range(2):
            step(network, optimizer)
        found |= {f"{kind}/{n}": t for n, t in state(network).items()}
        with torch.no_grad():
            for name, value in before.items():
                get_tensor(network.module, name).copy_(value)
    return found


def walk(network: Network, num_steps: int, seed: int) -> tuple[dict[str, torch.optim.Optimizer], dict[str, int]]:
    """Change a network at random while two optimizers train it; returns them, and how often what was done."""
    rng = random.Random(seed)
    optimizers = {kind: make(network.module) for kind, make in OPTIMIZERS.items()}
    followers = [OptimizerFollower(o, network.module) for o in optimizers.values()]
    done: dict[str, int] = {}
    for _ in range(num_steps):
        event = apply(network, draw_plan(network, rng), followers)
        done[event.kind] = done.get(event.kind, 0) + 1
        for optimizer in optimizers.values():
            step(network, optimizer)
    return optimizers, done


def save(folder: Path, network: Network, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    folder.mkdir(parents=True)
    (folder / "architecture.json").write_text(json.dumps(record(network), allow_nan=False))
    _save(tensors_of(network), folder / "model.safetensors")
    _save({str(i): t for i, t in enumerate(network.example_inputs)}, folder / "inputs.safetensors")
    for kind, optimizer in optimizers.items():
        tensors, rest = optimizer_state(optimizer, network.module)
        _save(tensors, folder / f"{kind}.safetensors")
        (folder / f"{kind}.json").write_text(json.dumps(rest))


def load(folder: Path) -> tuple[Network, dict[str, torch.optim.Optimizer]]:
    inputs = load_file(folder / "inputs.safetensors")
    # Copies lie where torch puts them: sums over tensors at other offsets of a file differ in the last bit.
    examples = tuple(inputs[str(i)].clone() for i in range(len(inputs)))
    saved = json.loads((folder / "architecture.json").read_text())
    network = rebuild(saved, folder / "model.safetensors", example_inputs=examples, trust=["tests"])
    optimizers = {kind: make(network.module) for kind, make in OPTIMIZERS.items()}
    for kind, optimizer in optimizers.items():
        rest = json.loads((folder / f"{kind}.json").read_text())
        load_optimizer_state(optimizer, network.module, load_file(folder / f"{kind}.safetensors"), rest)
    return network, optimizers


def _save(tensors: Tensors, path: Path) -> None:
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, path)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
        _save(go_on(*load(folder)), folder / "elsewhere.safetensors")


if __name__ == "__main__":
    main()
