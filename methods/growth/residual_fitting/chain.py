"""Networks that are one chain of linear layers with activations between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.network import Network

ENTRYWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Hardtanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Identity, nn.Dropout,
)  # fmt: skip
_SHAPES: tuple[type[nn.Module], ...] = (nn.Flatten, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Chain:
    """Names of the linear layers in the order of the forward, and of the activations behind each of them but the last."""

    linears: tuple[str, ...]
    activations: tuple[tuple[str, ...], ...]

    def run(self, network: Network, weights: list[tuple[Tensor, Tensor | None]], x: Tensor) -> Tensor:
        """A network of other weights and biases with the same activations: [n, inputs] -> [n, outputs]."""
        for (weight, bias), names in zip(weights, (*self.activations, ()), strict=True):
            x = nn.functional.linear(x, weight, bias)
            for name in names:
                x = network.module.get_submodule(name)(x)
        return x


class NoChain(ValueError):
    """A network is no chain; the message says why."""


def why_no_chain(network: Network) -> str | None:
    """Why a network is no chain; None when it is one."""
    try:
        chain_of(network)
    except NoChain as error:
        return str(error)
    return None


def chain_of(network: Network) -> Chain:
    """The chain that a network is; its forward is checked on the example inputs.

    Raises:
        NoChain: it is none.
    """
    if len(network.example_inputs) != 1 or not isinstance(network.example_inputs[0], Tensor):
        raise NoChain("its forward takes something else than one tensor")
    called: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, args, output: called.append(name)

    leaves = {n: m for n, m in network.module.named_modules() if not any(True for _ in m.children())}
    hooks = [m.register_forward_hook(note(n)) for n, m in leaves.items()]
    device = network.device().type
    try:
        with frozen_modes(network.module), torch.no_grad(), torch.autocast(device, enabled=False):
            output = network.module(*network.example_inputs)
            return _checked(network, _read(leaves, called), output)
    finally:
        for hook in hooks:
            hook.remove()


def _read(leaves: dict[str, nn.Module], called: list[str]) -> Chain:
    """The chain of the modules that were called, in their order."""
    linears: list[str] = []
    activations: list[tuple[str, ...]] = []
    for name in list(called):
        module = leaves[name]
        if called.count(name) != 1:
            raise NoChain(f"{name} is called {called.count(name)} times")
        if type(module) is nn.Linear:
            linears.append(name)
            activations.append(())
        elif not linears and isinstance(module, _SHAPES):
            continue
        elif linears and type(module) in ENTRYWISE:
            activations[-1] = (*activations[-1], name)
        else:
            raise NoChain(f"{name} is a {type(module).__name__}; it needs a chain of Linear layers and activations")
    if len(linears) < 2:
        raise NoChain("it has no hidden layer between two Linear layers")
    return Chain(tuple(linears), tuple(activations[:-1]))


def _checked(network: Network, chain: Chain, output: Any) -> Chain:
    """The chain, if it gives the same output as the network."""
    layers = [network.module.get_submodule(n) for n in chain.linears]
    weights = [(layer.weight, layer.bias) for layer in layers]
    again = chain.run(network, weights, network.example_inputs[0].flatten(1))  # type: ignore[arg-type]
    if not isinstance(output, Tensor) or output.shape != again.shape or not torch.allclose(output, again, 1e-4, 1e-5, True):
        raise NoChain("its forward does more than run its Linear layers and activations one after the other")
    return chain
