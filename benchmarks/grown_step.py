"""A training step of a network that grew, against a fresh network of the same final shape. Goal: at most 1.03x.

Both train on the same batch in alternating rounds of one process; the figure is the ratio of the medians.
"""

import statistics
import time

import torch
from torch import nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.networks.resnet import resnet
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.followers import OptimizerFollower

ROUNDS = 31


def step(module: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(module(inputs), targets).backward()
    optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    torch.manual_seed(0)
    half = {"num_classes": 10, "in_channels": 3, "depth": 20, "width": 0.5}
    inputs, targets = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    grown = Network(resnet(**half), "coppice.methods.networks.resnet:resnet", half, (inputs[:2],))
    optimizer = torch.optim.SGD(grown.module.parameters(), 0.01, momentum=0.9)
    step(grown.module, optimizer, inputs, targets)
    for name in [e.name for e in grown.elements() if e.level == "channel" and e.permissible]:
        apply(grown, GrowPlan(name, grown.element(name).size), [OptimizerFollower(optimizer, grown.module)])
    fresh = resnet(**{**half, "width": 1.0})
    shapes = [p.shape for p in grown.module.parameters()]
    assert shapes == [p.shape for p in fresh.parameters()], "both networks must have the same shapes"
    fresh_optimizer = torch.optim.SGD(fresh.parameters(), 0.01, momentum=0.9)
    both = ((grown.module, optimizer), (fresh, fresh_optimizer))
    pairs = [[step(module, trained, inputs, targets) for module, trained in both] for _ in range(ROUNDS)]
    a, b = (statistics.median(column) for column in zip(*pairs[3:], strict=True))
    print(f"training step: grown {a * 1e3:.1f} ms, fresh {b * 1e3:.1f} ms: {a / b:.3f}x (goal <= 1.03x)")


if __name__ == "__main__":
    main()
