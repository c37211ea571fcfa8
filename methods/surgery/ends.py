"""Where the branches of a residual block end: with the weights there at zero, the block passes its input on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from coppice.methods.graph.calls import argument, output_of, place_of_input, with_input
from coppice.methods.network import Network
from coppice.methods.surgery.inserted import put_behind_names


def branch_ends(network: Network, at: str) -> list[str]:
    """Paths, inside a block, of the modules with weights whose output is added to a skip path; else the last one that runs."""
    behind = tuple(f"{name}." for name in put_behind_names(network.module.get_submodule(at)))
    adds_to_skip = dict(weighted(network, at, behind))
    return [path for path, adds in adds_to_skip.items() if adds] or list(adds_to_skip)[-1:]


def weighted(network: Network, at: str, behind: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Paths, inside a block, of the modules with weights, as they run, and whether their output is added to a skip path.

    A module that is not called, but whose weights the module that holds it gives to a function, runs where that one does.
    """
    calls = network.graph().modules
    for name, call in calls.items():
        path = name.removeprefix(at).removeprefix(".")
        inside = (name == at or name.startswith(at + ".")) and not f"{path}.".startswith(behind)
        module = network.module.get_submodule(name)
        for child, held in module.named_children() if inside else ():
            under = f"{path}.{child}".removeprefix(".")
            called = f"{name}.{child}" in calls or f"{under}.".startswith(behind)
            if not called and held._parameters.get("weight") is not None:
                yield under, False
        if inside and module._parameters.get("weight") is not None:
            yield path, call.branch


@torch.no_grad()
def ends_of_copy(network: Network, at: str, made: nn.Module) -> list[str]:
    """Paths, inside a copy of a residual block, of the modules that must be zero for it to pass on its input, found by running.

    Where what is added to a skip path has no weights of its own (a layer scale or a normalisation lies between), the last
    modules before it are taken whose weights and biases, at zero, make the copy the identity.

    Args:
        network: which the copy is not in yet; run once on its example inputs.
        at: name of the block.
        made: the copy; its weights are as before afterwards.

    Raises:
        ValueError: the copy changes its input even with all of its weights at zero.
    """
    ends = branch_ends(network, at)
    if not network.graph().modules[at].residual:
        return ends
    args, kwargs, given = _given(network, at)
    behind = tuple(f"{name}." for name in put_behind_names(network.module.get_submodule(at)))
    candidates = list(dict(weighted(network, at, behind)))
    saved = {path: _values(made.get_submodule(path)) for path in candidates}
    modes = [(m, m.training) for m in made.modules()]
    made.eval()
    try:
        for chosen in (ends, candidates):
            _zero(made, chosen)
            if _passes_on(made, args, kwargs, given):
                return _fewest(made, chosen, saved, args, kwargs, given)
            _restore(made, saved)
    finally:
        _restore(made, saved)
        for m, training in modes:
            m.training = training
    raise ValueError(f"a copy of {at} must be able to pass on its input, but with all of its weights at zero it changes it.")


def _fewest(
    made: nn.Module, zero: Sequence[str], saved: dict[str, dict[str, Tensor]], args: Any, kwargs: Any, given: Tensor
) -> list[str]:
    """Of the modules at zero, in the order in which they run, those that must be so; the earlier ones get their weights back."""
    needed = []
    for path in zero:
        _restore(made, {path: saved[path]})
        if not _passes_on(made, args, kwargs, given):
            _zero(made, [path])
            needed.append(path)
    return needed


def placed_inputs(network: Network) -> tuple[Any, ...]:
    """The example inputs, where the network is."""
    device = network.device()
    return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, network.example_inputs)


def _given(network: Network, at: str) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """What the block is given, with its own output as the input; and that output."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
        seen.append((args, kwargs, returned))

    modes = [(m, m.training) for m in network.module.modules()]
    handle = network.module.get_submodule(at).register_forward_hook(note, prepend=True, with_kwargs=True)
    try:
        network.module.eval()
        with torch.random.fork_rng(devices=[]):
            network.module(*placed_inputs(network))
    finally:
        handle.remove()
        for m, training in modes:
            m.training = training
    args, kwargs, returned = seen[0]
    output, place = output_of(returned), place_of_input(args, kwargs)
    assert output is not None and place is not None, "a residual block is given a tensor and returns one"
    args, kwargs = with_input(args, kwargs, place, output.clone())
    return args, kwargs, output.clone()


def _passes_on(made: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], given: Tensor) -> bool:
    place = place_of_input(args, kwargs)
    assert place is not None
    again, named = with_input(args, kwargs, place, argument(args, kwargs, place).clone())
    output = output_of(made(*again, **named))
    return output is not None and output.shape == given.shape and bool((output == given).all())


def _values(module: nn.Module) -> dict[str, Tensor]:
    held = {leaf: module._parameters.get(leaf) for leaf in ("weight", "bias")}
    return {leaf: p.detach().clone() for leaf, p in held.items() if p is not None}


def _zero(made: nn.Module, paths: Sequence[str]) -> None:
    for path in paths:
        for leaf in ("weight", "bias"):
            parameter = made.get_submodule(path)._parameters.get(leaf)
            if parameter is not None:
                parameter.zero_()


def _restore(made: nn.Module, saved: dict[str, dict[str, Tensor]]) -> None:
    for path, values in saved.items():
        for leaf, value in values.items():
            parameter = made.get_submodule(path)._parameters[leaf]
            assert parameter is not None
            parameter.copy_(value)
