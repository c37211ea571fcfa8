"""Gates on residual branches, folded into the weights at their ends, that proximal gradient steps take to exactly zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from coppice.methods.graph.calls import ends_of
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.pruning.gates.weight_gates import Gates
from coppice.methods.surgery.layers import branch_ends
from coppice.methods.surgery.tensors import get_tensor


def gate_tensors(network: Network, name: str) -> list[str]:
    """Weights and biases of the modules whose output is what a block adds to its input: at zero the block does nothing."""
    names = []
    for path in branch_ends(network, name):
        owner = f"{name}.{path}".rstrip(".")
        held = network.module.get_submodule(owner)._parameters
        names += [f"{owner}.{leaf}" for leaf in ("weight", "bias") if held.get(leaf) is not None]
    return names


@torch.no_grad()
def why_no_gate(network: Network, element: Element) -> str | None:
    """Why no gate can be folded into a block; None when one can: the block's output at zero weights is run and looked at."""
    if element.level != "block":
        return "a gate needs a block beside a skip path"
    names = gate_tensors(network, element.name)
    if not names:
        return "no weights are at the ends of its branches"
    call, seen = network.graph().modules[element.name], []
    block = network.module.get_submodule(element.name)
    hook = block.register_forward_hook(lambda *call: seen.append(ends_of(*call[1:])), with_kwargs=True)
    modes = [(m, m.training) for m in network.module.modules()]
    try:
        network.module.eval()
        zero = {n: torch.zeros_like(get_tensor(network.module, n)) for n in names}
        with torch.random.fork_rng(devices=[]):
            torch.func.functional_call(network.module, zero, _on(network, network.example_inputs))
    finally:
        hook.remove()
        for module, training in modes:
            module.training = training
    given, out = seen[0]
    rest = torch.zeros_like(out) if call.branch and not call.residual else given
    if not bool(torch.isfinite(out).all()) or out.shape != rest.shape:
        return None if out.shape == rest.shape else "its output has another shape than its input"
    if float((out - rest).abs().max()) > 1e-5 * max(1.0, float(rest.abs().max())):
        return f"with {', '.join(names)} at zero it still does something"
    return None


def _on(network: Network, inputs: Any) -> Any:
    return tree_map(lambda value: value.to(network.device()) if isinstance(value, Tensor) else value, inputs)


class BlockGates(Gates):
    """One trained factor on each residual branch; `own` holds it by the block's name.

    Args:
        network: which is not changed; gates start at 1.
        strength: weight of sum |gate| in the loss.
        rate: learning rate of the gates, as a multiple of the optimizer's.
    """

    def __init__(self, network: Network, strength: float, rate: float) -> None:
        super().__init__()
        self.strength, self.rate = strength, rate
        self._elements: tuple[Element, ...] | None = None
        self._places: dict[str, list[str]] = {}
        self.sync(network)

    def places(self, network: Network) -> dict[str, list[str]]:
        """The tensors that each block's gate multiplies; where one block is inside another, the outer one has the gate."""
        if self._elements is not network.elements():
            self._elements, self._places = network.elements(), {}
            taken: set[str] = set()
            for element in sorted(self._elements, key=lambda e: e.name.count(".")):
                if element.level != "block" or not element.permissible or why_no_gate(network, element) is not None:
                    continue
                names = gate_tensors(network, element.name)
                if taken.isdisjoint(names):
                    taken.update(names)
                    self._places[element.name] = names
        return self._places

    def names(self, network: Network) -> list[str]:
        """See `Gates.names`."""
        return sorted(n for names in self.places(network).values() for n in names)

    def gated(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Gates.gated`."""
        return {n: raw[n] * own[block].to(raw[n].dtype) for block, names in self.places(network).items() for n in names}

    def penalty(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
        """Nothing: the penalty is in the proximal step."""
        return torch.stack([g * 0.0 for g in own.values()]).sum()

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """Proximal gradient: a step down the loss, then soft thresholding by the step size times the strength."""
        size = lr * self.rate
        for name, gradient in gradients.items():
            moved = self.own[name] - size * gradient
            self.own[name] = moved.sign() * (moved.abs() - size * self.strength).clamp(min=0.0)

    def rebuild(self, network: Network, weights: Mapping[str, Tensor]) -> None:
        """See `Gates.rebuild`: gates stay, except those at 0 before weights that are not."""
        known, self.raw = self.raw, {}
        places = self.places(network)
        one = torch.ones((), dtype=torch.float64, device=network.device())
        self.own = {block: self.own.get(block, one) for block in places}
        for block, names in places.items():
            gate, zero = self.own[block], all(not bool(weights[n].any()) for n in names)
            keep = zero and float(gate) == 0 and all(n in known and known[n].shape == weights[n].shape for n in names)
            if float(gate) == 0 and not keep:
                gate = self.own[block] = one
            for n in names:
                self.raw[n] = known[n] if keep else weights[n] / gate.to(weights[n].dtype)
