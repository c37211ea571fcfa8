"""Finding every element, and pruning half of the channels, against Torch-Pruning 1.6.1. Goals: at most 1x; at least 2x faster.

Both build their graph on the same networks with the same inputs, in alternating rounds of one process; a figure is the ratio of
the medians. Torch-Pruning comes with `pip install -e .[bench]`.
"""

import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

from coppice.methods.graph import Atom, Element, Graph, elements, trace
from coppice.methods.graph.expr import unit_map
from coppice.methods.networks.resnet import resnet
from coppice.methods.networks.vgg import vgg11
from coppice.methods.surgery.resize import narrowing, resize

ROUNDS, PRUNING_ROUNDS = 21, 7


class FusedAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.reshape(batch, tokens, self.num_heads * self.head_dim))


class TorchAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def transformer(attention: Callable[[int, int], nn.Module]) -> nn.Module:
    blocks = [Block(attention(256, 8), 256) for _ in range(6)]
    return nn.Sequential(nn.Linear(64, 256), *blocks, nn.LayerNorm(256), nn.Linear(256, 10))


IMAGE, SEQUENCE = (2, 3, 32, 32), (2, 16, 64)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18 (CIFAR)": (lambda: resnet(num_classes=10, in_channels=3, depth=18, stem="cifar"), IMAGE),
    "resnet56": (lambda: resnet(num_classes=10, in_channels=3, depth=56), IMAGE),
    "vgg11-bn": (lambda: vgg11(num_classes=10), IMAGE),
    "transformer, nn.MHA": (lambda: transformer(TorchAttention), SEQUENCE),
    "transformer, fused qkv": (lambda: transformer(FusedAttention), SEQUENCE),
}


CONVOLUTIONAL = ("resnet18 (CIFAR)", "resnet56", "vgg11-bn")


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def compare_graphs(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[float, float]:
    """Median seconds of ours and of theirs."""
    module, inputs = build().eval(), torch.randn(shape)
    ours, theirs = [], []
    for turn in range(ROUNDS + 1):
        a = seconds(lambda: elements(module, (inputs,)))
        b = seconds(lambda: torch_pruning.DependencyGraph().build_dependency(module, example_inputs=inputs))
        if turn:
            ours.append(a)
            theirs.append(b)
    return statistics.median(ours), statistics.median(theirs)


def prune_half(module: nn.Module, inputs: Tensor) -> None:
    """Trace, score every channel by the size of the weights that make it, and remove the smaller half of each element."""
    graph = trace(module, (inputs,))
    changes = []
    for element in elements(module, (inputs,), graph=graph):
        if element.permissible and element.level == "channel" and not element.joint:
            smallest = scores(module, graph, element).argsort()[: element.size // 2]
            changes.append(narrowing(element, smallest.tolist()))
    resize(module, graph, changes)


@torch.no_grad()
def scores(module: nn.Module, graph: Graph, element: Element) -> Tensor:
    total = torch.zeros(element.size)
    for occurrence in graph.atoms[element.name].occurrences:
        if occurrence.role == "produce":
            tensor = module.get_parameter(occurrence.tensor).movedim(occurrence.dim, 0).flatten(1).square().sum(1)
            if isinstance(occurrence.expr, Atom):
                total += tensor
                continue
            units = torch.tensor(unit_map(occurrence.expr, element.name))
            total.index_add_(0, units[units >= 0], tensor[units >= 0])
    return total


def prune_half_with_theirs(module: nn.Module, inputs: Tensor) -> None:
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    torch_pruning.pruner.MetaPruner(module, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=[last]).step()


def compare_pruning(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[float, float]:
    """Median seconds of ours and of theirs, from a fresh network to the pruned one."""
    ours, theirs = [], []
    for turn in range(PRUNING_ROUNDS + 1):
        inputs, mine, other = torch.randn(shape), build().eval(), build().eval()
        a = seconds(lambda mine=mine, inputs=inputs: prune_half(mine, inputs))
        b = seconds(lambda other=other, inputs=inputs: prune_half_with_theirs(other, inputs))
        mine(inputs)
        if turn:
            ours.append(a)
            theirs.append(b)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'network':24s} {'elements, ms':>14s} {'torch-pruning, ms':>18s} {'ratio':>7s}")
    for name, (build, shape) in NETWORKS.items():
        ours, theirs = compare_graphs(build, shape)
        print(f"{name:24s} {1e3 * ours:14.1f} {1e3 * theirs:18.1f} {ours / theirs:7.2f}")
    print(f"\n{'network':24s} {'prune half, ms':>14s} {'torch-pruning, ms':>18s} {'times faster':>13s}")
    for name in CONVOLUTIONAL:
        ours, theirs = compare_pruning(*NETWORKS[name])
        print(f"{name:24s} {1e3 * ours:14.1f} {1e3 * theirs:18.1f} {theirs / ours:13.1f}")


if __name__ == "__main__":
    main()
