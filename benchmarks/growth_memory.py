"""Peak extra memory of a growth event of VGG11 at batch 128 and 32x32. Goal: below 1x the activations of the forward.

Counted are the bytes of every storage that PyTorch makes while an event runs (measure, plan and apply of every hidden element at
once, by an eighth), each from its making to its freeing; what was there before (weights, batch) is not counted, nor the
workspaces that LAPACK asks for itself. The yardstick is the same count after a forward in training mode: what backward needs.
"""

import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # else benchmarks/methods.py would hide the package

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods.adapt import Rules, adapt
from methods.event import Event
from methods.growth.gradmax import GradMax
from methods.growth.tiny import Tiny
from methods.method import Context
from methods.network import Network
from methods.networks.vgg import vgg11
from methods.selection import All

BATCH, FRACTION = 128, 0.125
MIB = 2**20


class Live(TorchDispatchMode):
    """Bytes of the storages that were made within and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def know(self, tensor: Tensor) -> None:
        """Count a storage from here on, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in taken:
                self.know(tensor)
        return out


def peak(action: Callable[[], object]) -> tuple[int, int]:
    """Bytes at the peak and at the end, while what the action returns is alive."""
    with Live() as live:
        kept = action()
        end = live.now
    del kept
    return live.peak, end


def main() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    print(f"{'network':10s} {'method':9s} {'elements':>8s} {'forward, MiB':>13s} {'event, MiB':>11s} {'ratio':>6s}  (goal < 1)")
    for name, method in (("gradmax", GradMax()), ("tiny", Tiny(line_search=False))):
        module = vgg11(10)
        network = Network(module, "methods.networks.vgg:vgg11", {"num_classes": 10}, (inputs[:2],))
        ctx = Context(network, lambda n: [(inputs, targets)] * n, torch.nn.functional.cross_entropy, torch.Generator())
        _, forward = peak(partial(module, inputs))
        network.elements()
        events: list[Event] = []
        act = partial(adapt, ctx, method, All(), FRACTION, Rules())
        most, _ = peak(lambda act=act, events=events: events.extend(act().events))
        line = f"vgg11-bn   {name:9s} {len(events):8d} {forward / MIB:13.0f} {most / MIB:11.0f} {most / forward:6.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
