"""What methods may ask to be measured: inputs and output gradients of modules, batch by batch; nothing is kept but sums."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph.calls import ends_of, with_output
from coppice.methods.method import Context
from coppice.methods.ranks import ALONE, Ranks


class NonFiniteStatistics(RuntimeError):
    """Something measured is NaN or infinite; the event that needed it must be skipped."""


def require_finite(what: str, *tensors: Tensor, ranks: Ranks = ALONE) -> None:
    """Raise `NonFiniteStatistics` when any entry is not finite; on all of `ranks`, where it is not on one of them.

    What is not summed over ranks yet must be given with them: a rank that stops alone leaves the others waiting.
    """
    finite = all(bool(torch.isfinite(piece).all()) for t in tensors for piece in t.detach().flatten().split(2**20))
    if ranks.count(int(not finite)):
        raise NonFiniteStatistics(f"{what} must be finite, but has NaN or infinite entries; lower the learning rate.")


@dataclass(frozen=True)
class Seen:
    """One batch at one module: its first input, its output, and the gradient of the summed loss with respect to the output.

    The gradient is None when it was not asked for or the loss does not depend on the output.
    """

    input: Tensor
    output: Tensor
    gradient: Tensor | None


@contextmanager
def frozen_modes(module: nn.Module) -> Iterator[None]:
    """Eval mode within: running statistics are used and not touched; every submodule's mode and the RNG are put back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def observe(
    context: Context,
    names: Sequence[str],
    use: Callable[[dict[str, Seen], Tensor], None],
    num_batches: int,
    gradients: bool | Collection[str] = True,
) -> int:
    """Show `use` what goes through the modules called `names`, once a batch.

    The network runs in eval mode. Parameters' gradients, buffers, modes and the RNG stay as they are, and no hook is left. Where
    several ranks train the network, each sees its share: what `use` adds up must be summed over `context.ranks` afterwards.

    Args:
        context: network, data and loss.
        names: module names; a module that is called several times in a forward shows its last call.
        use: called with what was seen, by module name, and the batch's inputs.
        num_batches: how many batches.
        gradients: whether output gradients are wanted, or of which modules.

    Returns:
        Number of samples on all ranks, by which sums are divided.
    """
    module = context.network.module
    wanted = (names if gradients else ()) if isinstance(gradients, bool) else gradients
    caught: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [module.get_submodule(n).register_forward_hook(_catch(n, caught), prepend=True, with_kwargs=True) for n in names]
    samples = 0
    try:
        with frozen_modes(module):
            for inputs, targets in context.shards(num_batches):
                caught.clear()
                with torch.set_grad_enabled(bool(wanted)):
                    loss = context.loss(module(inputs), targets) * len(targets)
                    seen = _seen(caught, loss, wanted)
                with torch.no_grad():
                    use(seen, inputs)
                samples += len(targets)
    finally:
        for hook in hooks:
            hook.remove()
    return context.ranks.count(samples)


def _catch(name: str, caught: dict[str, tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Keeps the output itself and passes a copy on: an in-place operation behind the module must not change what is kept."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> Any:
        given, output = ends_of(args, kwargs, returned)
        caught[name] = (given.detach().clone(), output)
        return with_output(returned, output.clone())

    return hook


def _seen(caught: dict[str, tuple[Tensor, Tensor]], loss: Tensor, wanted: Collection[str]) -> dict[str, Seen]:
    names = [n for n in caught if n in wanted]
    grads: Sequence[Tensor | None] = torch.autograd.grad(loss, [caught[n][1] for n in names], allow_unused=True) if names else ()
    gradients = dict(zip(names, grads, strict=True))
    return {n: Seen(before, output.detach(), gradients.get(n)) for n, (before, output) in caught.items()}


def channel_means(context: Context, names: Sequence[str], num_batches: int) -> dict[str, Tensor]:
    """Mean input of each input channel of linear layers and convolutions, over samples and positions: [channels], float64, CPU.

    What a bias behind them must take over when a channel goes.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, batch in seen.items():
            linear = isinstance(context.network.module.get_submodule(name), nn.Linear)
            x = batch.input.double()
            flat = (x if linear else x.movedim(1, -1)).flatten(0, -2)
            sums[name] = sums.get(name, 0) + flat.sum(0).cpu()
            counts[name] = counts.get(name, 0) + len(flat)

    observe(context, names, use, num_batches, gradients=False)
    context.ranks.sum(*sums.values())
    means = {name: total / context.ranks.count(counts[name]) for name, total in sums.items()}
    for name, mean in means.items():
        require_finite(f"inputs of {name}", mean)
    return means


@torch.no_grad()
def mean_loss(context: Context, num_batches: int) -> Tensor:
    """Mean loss over batches in eval mode, a float64 scalar on the CPU."""
    total, samples = torch.zeros((), dtype=torch.float64), 0
    with frozen_modes(context.network.module):
        for inputs, targets in context.shards(num_batches):
            total += context.loss(context.network.module(inputs), targets).double().cpu() * len(targets)
            samples += len(targets)
    context.ranks.sum(total)
    require_finite("the loss", total)
    return total / max(context.ranks.count(samples), 1)
