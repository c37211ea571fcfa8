"""Single weights with the least synaptic flow go before training, in rounds, without data (SynFlow, Tanaka et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import frozen_modes, require_finite
from coppice.methods.method import Context, parameter
from coppice.methods.network import Network
from coppice.methods.pruning.bases.weights import WeightPruning
from coppice.methods.surgery.masks import mask_of

LINEAR = frozenset(
    (
        "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "selu_", "celu", "gelu",
        "silu", "mish", "softplus", "softsign", "tanh", "tanh_", "sigmoid", "sigmoid_", "logsigmoid", "hardtanh", "hardtanh_",
        "hardswish", "hardsigmoid", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
    )
)
"""Functions that are replaced by the identity: activations, which ReLU is on what is positive, and norms."""


class LinearFlow(TorchFunctionMode):
    """Within, activations and norms pass on their input."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        if getattr(func, "__name__", "") in LINEAR:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class SynFlow(WeightPruning):
    """Iterative synaptic flow pruning: score |w dR/dw| of R, the summed output of a positive linear network for an input of ones.

    R is that of the network with absolute weights, without biases, activations and norms, in float64; of `rounds` rounds, the
    k-th keeps the fraction density^(k/rounds) of the active weights of all tensors together, by scores that are computed anew.
    The network is never cut: what flows into a layer is what flows out, so that a layer's last weights carry all. A branch beside
    a skip path may run empty, as the skip path carries the flow.

    The rounds run inside `measure`, down to `density`, whatever the amount asks. A weight's importance is its rank in the order
    in which weights go, in (0, 1], so that removing the least important ones stops the rounds early: choose a density at or below
    the one that is asked for. The weights that the last round would keep are ranked by its scores. Ours: activations of any kind
    are passed over, where the published code leaves them in; biases are taken as 0.
    """

    why = "sparse at initialisation without any data, and never by cutting the network apart"
    paper = "Tanaka et al. 2020, SynFlow, algorithm 1 (arXiv 2006.05467)"
    batch_norm = "passed over while the flow is measured"
    cost = "`rounds` forwards and backwards of one sample in float64; no data"
    when = ("initial",)
    where = ("global",)

    rounds: int = parameter(100, "rounds in which the weights go", low=1, high=10_000, log=True)
    density: float = parameter(0.01, "part of the weights that is left after the last round", low=1e-5, high=0.99, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and not any(_real(x) for x in context.network.example_inputs):
            return "an input of ones flows through real inputs only, but the network takes none"
        return reason

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """See the class; float64."""
        network, names = context.network, [e.name for e in elements]
        masks = {name: mask_of(network, name) for name in names}
        active = _joined(masks)
        positions, rank = active.nonzero().flatten(), torch.zeros(len(active), dtype=torch.float64, device=active.device)
        total, gone = len(positions), 0
        for k in range(1, self.rounds + 1):
            flow = _joined(synaptic_flow(network, _split(active, masks)))[positions]
            require_finite("the synaptic flow", flow)
            left = math.ceil(total * self.density ** (k / self.rounds)) if k < self.rounds else 0
            leaving = flow.argsort(stable=True)[: len(positions) - left]
            rank[positions[leaving]] = torch.arange(gone + 1, gone + len(leaving) + 1, device=rank.device).double() / total
            gone += len(leaving)
            active[positions[leaving]] = False
            positions = active.nonzero().flatten()
        return _split(rank, masks)


def synaptic_flow(network: Network, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|w dR/dw| of the weights with these masks, by name, float64."""
    module = network.module
    tensors = {n: t.detach().double() for n, t in [*module.named_parameters(), *module.named_buffers()] if t.is_floating_point()}
    tensors = {n: torch.zeros_like(t) if n.rpartition(".")[2].startswith("bias") else t.abs() for n, t in tensors.items()}
    for name, mask in {**network.masks, **masks}.items():
        tensors[name] = tensors[name] * mask
    leaves = {n: tensors[n].requires_grad_() for n in masks}
    inputs = tuple(torch.ones_like(x[:1], dtype=torch.float64) if _real(x) else x[:1] for x in network.example_inputs)
    with frozen_modes(module), torch.enable_grad(), torch.autocast(network.device().type, enabled=False), LinearFlow():
        output = torch.func.functional_call(module, tensors, inputs)
        flow = sum(t.sum() for t in tree_leaves(output) if _real(t))
    gradients = torch.autograd.grad(flow, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), gradients, strict=True)
    return {n: torch.zeros_like(w) if g is None else (w * g).detach().abs() for (n, w), g in pairs}


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _joined(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors.values()])


def _split(joined: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_joined`: one vector as tensors of these names and shapes."""
    parts = joined.split([t.numel() for t in like.values()])
    return {name: part.view(t.shape) for (name, t), part in zip(like.items(), parts, strict=True)}
