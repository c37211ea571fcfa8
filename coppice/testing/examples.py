"""Small networks and what a method gets to see of them: examples that every suite and many tests act on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.method import Context
from coppice.methods.network import LossFunction, Network


class Mixed(nn.Module):
    """Convolutions with and without BatchNorm, a residual block, pooling, flatten and linear layers."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem, self.stem_norm, self.stem_act = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        self.block = Block(width)
        self.conv, self.act = nn.Conv2d(width, 8, 3, stride=2, padding=1), nn.ReLU()
        self.fc1, self.tanh, self.fc2 = nn.Linear(8 * 4, 7), nn.Tanh(), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 8, 8) to scores (N, 4)."""
        x = self.block(self.stem_act(self.stem_norm(self.stem(x))))
        x = F.max_pool2d(self.act(self.conv(x)), 2)
        scores: Tensor = self.fc2(self.tanh(self.fc1(x.flatten(1))))
        return scores


class Block(nn.Module):
    """A residual block of two convolutions with BatchNorm: (N, width, H, W) to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.norm2 = nn.Conv2d(5, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same shape."""
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def randomised(module: nn.Module) -> nn.Module:
    """Statistics and scales away from their special values."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(m.weight, 0.3, 1.5)
            nn.init.normal_(m.bias, 0, 0.2)
            m.get_buffer("running_mean").normal_(0, 0.2)
            m.get_buffer("running_var").uniform_(0.5, 1.5)
    return module


def context(module: nn.Module, inputs: Tensor, targets: Tensor, seed: int = 0, loss: LossFunction = F.cross_entropy) -> Context:
    """What a method sees of a module on one batch. `inputs` are its inputs, batch first; `targets` those of `loss`."""
    network = Network(module, "testing:module", {}, (inputs[:2],))
    return Context(network, lambda count: [(inputs, targets)] * count, loss, torch.Generator().manual_seed(seed))


def mixed(dtype: torch.dtype = torch.float32, seed: int = 0) -> Context:
    """`Mixed` on eight images (3, 8, 8) of four classes; `seed` is that of the context's generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = randomised(Mixed()).to(dtype)
        return context(module, torch.randn(8, 3, 8, 8, dtype=dtype), torch.randint(4, (8,)), seed)


def everything(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors of a module, by name."""
    return {n: t.detach().clone() for n, t in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two modules had the same tensors, bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
