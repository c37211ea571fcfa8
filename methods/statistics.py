"""What methods may ask to be measured: inputs and output gradients of modules, batch by batch; nothing is kept but sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.method import Context


class NonFiniteStatistics(RuntimeError):
    """Something measured is NaN or infinite; the event that needed it must be skipped."""


def require_finite(what: str, *tensors: Tensor) -> None:
    """Raise `NonFiniteStatistics` when any entry is not finite."""
    for tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteStatistics(f"{what} must be finite, but has NaN or infinite entries; lower the learning rate.")


@dataclass(frozen=True)
class Seen:
    """One batch at one module: its first input, and the gradient of the summed loss with respect to its output (or None)."""

    input: Tensor
    output: Tensor
    gradient: Tensor | None


@contextmanager
def frozen_modes(module: nn.Module) -> Iterator[None]:
    """Eval mode within: running statistics are used and not touched; every submodule's mode is put back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def observe(
    context: Context, names: Sequence[str], use: Callable[[dict[str, Seen], int], None], num_batches: int, gradients: bool = True
) -> None:
    """Show `use` what goes through the modules called `names`, once a batch.

    The network runs in eval mode. Parameters' gradients, buffers, modes and the RNG stay as they are, and no hook is left.

    Args:
        context: network, data and loss.
        names: module names; a module that is called several times in a forward shows its last call.
        use: called with what was seen and the batch's number of samples.
        num_batches: how many batches.
        gradients: whether output gradients are wanted.
    """
    module = context.network.module
    caught: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [module.get_submodule(n).register_forward_hook(_catch(n, caught)) for n in names]
    try:
        with torch.random.fork_rng(devices=[]), frozen_modes(module), torch.set_grad_enabled(gradients):
            for inputs, targets in context.batches(num_batches):
                caught.clear()
                loss = context.loss(module(inputs), targets) * len(targets)
                use(_seen(caught, loss, gradients), len(targets))
    finally:
        for hook in hooks:
            hook.remove()


def _catch(name: str, caught: dict[str, tuple[Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        caught[name] = (inputs[0].detach(), output)

    return hook


def _seen(caught: dict[str, tuple[Tensor, Tensor]], loss: Tensor, gradients: bool) -> dict[str, Seen]:
    names = list(caught)
    found: Sequence[Tensor | None] = [None] * len(names)
    if gradients:
        found = torch.autograd.grad(loss, [caught[n][1] for n in names], allow_unused=True)
    return {n: Seen(caught[n][0], caught[n][1].detach(), g) for n, g in zip(names, found, strict=True)}
