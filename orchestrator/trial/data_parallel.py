"""What keeps the replicas of a network on several ranks the same, and the wrapper with which they are trained."""

from __future__ import annotations

import gc
import warnings
import zlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from coppice.methods.network import Network
from coppice.methods.ranks import Ranks


class TrainingModule:
    """What is called in training in place of the network's module: compiled, and with gradients averaged over ranks.

    A wrapper around parameters that change their shape gives different gradients on each rank without an error, so the network
    is unwrapped as soon as training stops and wrapped anew; compiled code of another shape is forgotten, since after some
    recompilations PyTorch stays in its slow mode without a word.
    """

    def __init__(self, network: Network, ranks: Ranks, compiled: bool) -> None:
        self._network = network
        self._ranks = ranks
        self._compiled = compiled
        self._compilation: nn.Module | None = None
        self._parallel: nn.Module | None = None
        self._changes = -1

    def module(self) -> nn.Module:
        """What to call in a training step, for the network as it is now."""
        if self._changes != len(self._network.lineage):
            self.unwrap()
            self._compilation, self._changes = None, len(self._network.lineage)
        if self._compilation is None:
            self._compilation = _compile(self._network.module) if self._compiled else self._network.module
        if self._ranks.size == 1:
            return self._compilation
        if self._parallel is None:
            self._parallel = _parallel(self._compilation)
        return self._parallel

    def unwrap(self) -> None:
        """Call before anything but training happens to the network."""
        if self._parallel is not None:
            self._parallel = None
            gc.collect()  # its hooks on the parameters go with it, and it lies in a reference cycle


def _compile(module: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(module)  # type: ignore[return-value]


def _parallel(module: nn.Module) -> nn.Module:
    """Parameters that a forward does not use are looked for: growth and pruning may leave some that wait."""
    device = next(module.parameters()).device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DistributedDataParallel(
            module, device_ids=None if device.type == "cpu" else [device], broadcast_buffers=False, find_unused_parameters=True
        )


@torch.no_grad()
def average_buffers(ranks: Ranks, module: nn.Module) -> None:
    """Make all ranks' buffers equal: running means and variances are averaged, everything else is rank 0's.

    Each rank normalises by the statistics of its own samples, so the running ones differ between ranks.
    """
    if ranks.size == 1:
        return
    running = [b for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase) for b in _running(m)]
    for buffer in running:
        ranks.sum(buffer)
        buffer.div_(ranks.size)
    averaged = {id(b) for b in running}
    for buffer in module.buffers():
        if id(buffer) not in averaged and buffer.numel():
            mine = buffer.clone() if ranks.rank == 0 else torch.zeros_like(buffer)
            mine = mine.to(torch.uint8) if mine.dtype == torch.bool else mine
            ranks.sum(mine)
            buffer.copy_(mine)


def _running(module: nn.modules.batchnorm._NormBase) -> list[Tensor]:
    return [b for b in (module.running_mean, module.running_var) if b is not None]


def require_equal(ranks: Ranks, module: nn.Module, when: str) -> None:
    """Compare parameters and buffers of all ranks, bit by bit.

    Raises:
        RuntimeError: they differ; the message says on which ranks.
    """
    if ranks.size == 1:
        return
    own = torch.zeros(ranks.size, dtype=torch.int64)
    own[ranks.rank] = fingerprint(module)
    ranks.sum(own)
    different = [rank for rank in range(ranks.size) if own[rank] != own[0]]
    if different:
        raise RuntimeError(
            f"all {ranks.size} ranks must hold the same network, but {when} it differs on ranks {different} from rank 0; "
            "the trial cannot go on. A module whose forward or surgery depends on the rank may be the reason."
        )


def fingerprint(module: nn.Module) -> int:
    """A checksum of names, shapes and values of all parameters and buffers."""
    checksum = 0
    for name, tensor in module.state_dict().items():
        checksum = zlib.crc32(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(), checksum)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            checksum = zlib.crc32(flat.view(torch.uint8).numpy().data, checksum)
    return checksum
