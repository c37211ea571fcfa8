"""The derivative of each single sample's loss with respect to a factor on each unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from coppice.methods.measures.per_sample import Part, products, sample_gradients
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.method import Context
from coppice.methods.network import Network


def sample_factors(context: Context, places: Mapping[str, Sequence[Part]], num_batches: int) -> Iterator[dict[str, Tensor]]:
    """Sum of weight times gradient over the places of each unit, by element: [samples, size], float64, some samples at a time.

    Where the places are the input channels of linear layers and convolutions, this is the sum of their input times its gradient,
    which one forward and backward gives for a whole batch. Other elements need the gradients of single samples.
    Each element is in some of what is yielded, for every sample of this rank once. The network runs in eval mode and in full
    precision.
    """
    rest = {name: parts for name, parts in places.items() if not all(_is_input(context.network, p) for p in parts)}
    inputs = {name: parts for name, parts in places.items() if name not in rest}
    for factors, others in _by_inputs(context, inputs, num_batches) if inputs else ():
        rest |= {name: inputs[name] for name in others}
        yield factors
    names = sorted({p.tensor for parts in rest.values() for p in parts})
    if names:
        for gradients in sample_gradients(context, names, num_batches):
            yield {name: products(context.network, parts, gradients) for name, parts in rest.items()}


def _is_input(network: Network, part: Part) -> bool:
    """Whether a place is the input channels of a layer that is called once, with samples along its first dimension."""
    owner, _, leaf = part.tensor.rpartition(".")
    module, call = network.module.get_submodule(owner), network.graph().modules.get(owner)
    plain = type(module) is nn.Linear or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1)
    if not plain or isinstance(module, nn.modules.conv._ConvTransposeNd) or leaf != "weight" or part.dim != 1:
        return False
    example = network.example_inputs[0] if network.example_inputs else None
    if call is None or call.calls != 1 or not call.inputs or not isinstance(example, Tensor):
        return False
    return call.inputs[0].size == len(example)


def _by_inputs(
    context: Context, places: Mapping[str, Sequence[Part]], num_batches: int
) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Input times its gradient, summed over positions, and the elements left out: those of which samples do not come first."""
    network = context.network
    left_out: list[str] = []
    owners = sorted({p.tensor.rpartition(".")[0] for parts in places.values() for p in parts})
    for inputs, targets in context.shards(num_batches):
        caught: dict[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(frozen_modes(network.module))
            stack.enter_context(torch.autocast(inputs.device.type, enabled=False))
            stack.enter_context(torch.enable_grad())
            for name in owners:
                stack.callback(network.module.get_submodule(name).register_forward_pre_hook(_catch(name, caught)).remove)
            loss = context.loss(network.module(inputs), targets) * len(targets)
        gradients = torch.autograd.grad(loss, [caught[n] for n in owners], allow_unused=True)
        with torch.no_grad():
            by_owner = {n: _summed(network, n, caught[n], g) for n, g in zip(owners, gradients, strict=True)}
        rows = {name: [by_owner[p.tensor.rpartition(".")[0]] for p in parts] for name, parts in places.items()}
        left_out += [n for n, sums in rows.items() if n not in left_out and any(len(r) != len(targets) for r in sums)]
        yield {n: _factor(parts, rows[n]) for n, parts in places.items() if n not in left_out}, left_out


def _factor(parts: Sequence[Part], rows: Sequence[Tensor]) -> Tensor:
    """Sum over the places of each unit, [samples, size], from that over positions at each place, [samples, channels]."""
    return torch.stack([p.units_of(r) for p, r in zip(parts, rows, strict=True)]).sum(0)


def _catch(name: str, caught: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Gives the layer an input of its own, so that its gradient is what comes through this layer alone."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        own = args[0].clone()
        caught[name] = own if own.requires_grad else own.requires_grad_()
        return (caught[name], *args[1:])

    return hook


def _summed(network: Network, name: str, x: Tensor, gradient: Tensor | None) -> Tensor:
    """[n, channels], float64 on the CPU."""
    product = torch.zeros_like(x) if gradient is None else x * gradient
    if isinstance(network.module.get_submodule(name), nn.Linear):
        product = product.movedim(-1, 1)
    return (product.flatten(2).sum(2) if product.ndim > 2 else product).double().cpu()
