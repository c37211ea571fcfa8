"""Networks whose neurons and single connections form any directed acyclic graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.networks.acyclic import admit, levels, placed, possible

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""What every neuron may apply to its sum."""


class SparseLinear(nn.Module):
    """A linear layer that knows which of its connections exist; the others count as zero and get no gradient."""

    connections: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.uniform_(self.bias, -(in_features**-0.5), in_features**-0.5)
        self.register_buffer("connections", torch.ones(out_features, in_features, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        return F.linear(x, self.weight if x.is_meta else self.weight * self.connections, self.bias)


class DAG(nn.Module):
    """H neurons, each fed by any inputs and any other neurons as long as there is no cycle, and linear outputs fed by all.

    Row i of `weight` [H, I + H] holds what feeds neuron i: I inputs, then the neurons; `out.weight` [O, I + H] likewise for the
    outputs. `connections` and `out.connections`, bool of the same shapes, say which of them exist; those that do not count as
    zero and get no gradient. They follow the masks of a `Network` (see `settle`), which count, store and change
    them. The number of a neuron says nothing about its place in the graph: topological levels are found from the connections
    that exist, and all neurons of a level are evaluated at once.

    New neurons (channel `weight:0`) are connected with all inputs and all outputs, and with the other neurons as
    `coppice.methods.networks.acyclic.placed` says: last unless the plan gives them outgoing weights to neurons.
    """

    connections: Tensor

    def __init__(self, in_features: int, out_features: int, neurons: int, activation: str = "tanh") -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.zeros(neurons, in_features + neurons))
        self.bias = nn.Parameter(torch.zeros(neurons))
        self.register_buffer("connections", torch.zeros(neurons, in_features + neurons, dtype=torch.bool))
        self.out = SparseLinear(in_features + neurons, out_features)
        self._levels: tuple[Tensor, int, list[Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies find their levels anew."""
        return {**self.__dict__, "_levels": None}

    @property
    def num_inputs(self) -> int:
        """Number of inputs of a sample, I."""
        return self.weight.shape[1] - self.weight.shape[0]

    def levels(self) -> list[Tensor]:
        """Numbers of the neurons of each topological level, first those that no neuron feeds.

        Raises:
            ValueError: the connections have a cycle (they were not set by `settle`).
        """
        known = self._levels
        if known is not None and known[0] is self.connections and known[1] == self.connections._version:
            return known[2]
        unplaced = levels(self.connections[:, self.num_inputs :].cpu())
        if unplaced is None:
            raise ValueError("the connections of a DAG must have no cycle, but have one; set them by network.masks or settle().")
        placed_levels = [level.to(self.weight.device) for level in unplaced]
        self._levels = (self.connections, self.connections._version, placed_levels)
        return placed_levels

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) with I values a sample -> (N, O)."""
        x = torch.flatten(x, 1)
        return self.out(torch.cat([x, self.neurons(x)], 1))

    def neurons(self, x: Tensor) -> Tensor:
        """(N, I) -> what the neurons say, (N, H)."""
        act = FUNCTIONS[self.activation]
        if x.is_meta:  # a trace of dimensions: the same tensors meet, without the levels
            unseen = torch.zeros_like(self.bias).expand(len(x), -1)
            return act(F.linear(torch.cat([x, unseen], 1), self.weight, self.bias))
        level_numbers = self.levels()
        order = torch.cat(level_numbers)
        columns = torch.cat([torch.arange(self.num_inputs, device=order.device), self.num_inputs + order])
        weight = (self.weight * self.connections).index_select(0, order).index_select(1, columns)
        bias, start = self.bias.index_select(0, order), 0
        values = x
        for level in level_numbers:
            rows = slice(start, start + len(level))
            values = torch.cat([values, act(F.linear(values, weight[rows, : values.shape[1]], bias[rows]))], 1)
            start += len(level)
        return values[:, self.num_inputs :].index_select(1, order.argsort())

    @torch.no_grad()
    def settle(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Connected`: connections that would close a cycle are left out, in a fixed order."""
        wanted = masks.get("weight", self.connections).to(self.connections.device)
        outputs = masks.get("out.weight", self.out.connections).to(self.connections.device)
        for name, mask, weight in (("weight", wanted, self.weight), ("out.weight", outputs, self.out.weight)):
            if mask.shape != weight.shape:
                raise ValueError(f"the mask of {name} must have shape {list(weight.shape)}, but has {list(mask.shape)}.")
        inputs = wanted[:, : self.num_inputs]
        self.connections = torch.cat([inputs, self._without_cycles(wanted[:, self.num_inputs :])], 1)
        self.out.connections = outputs.clone()
        for weight, mask in ((self.weight, self.connections), (self.out.weight, self.out.connections)):
            if bool(weight[~mask].any()):
                weight.masked_fill_(~mask, 0.0)
        return {"weight": self.connections.clone(), "out.weight": self.out.connections.clone()}

    def _without_cycles(self, wanted: Tensor) -> Tensor:
        """[H, H] of wanted connections between neurons -> the acyclic part, with new neurons in their place."""
        if levels(wanted) is not None:
            return wanted
        old = len(self.connections)
        base = torch.zeros_like(wanted)
        if old <= len(wanted):
            before = self.connections[:, -old:] if old else base[:0, :0]
            base[:old, :old] = wanted[:old, :old] & before
            base[:old, :old] = admit(base[:old, :old], wanted[:old, :old])
        if old >= len(wanted):
            return admit(base, wanted)
        return placed(base, wanted, self.weight[:, self.num_inputs :] != 0, old)

    def could_exist(self, name: str) -> Tensor | None:
        """Which masked entries could be added; see `coppice.methods.graph.connectivity.Connected`."""
        if name == "out.weight":
            return ~self.out.connections
        if name != "weight":
            return None
        inputs, neurons = self.connections.tensor_split([self.num_inputs], 1)
        return torch.cat([~inputs, possible(neurons)], 1)


def dag(in_features: int, out_features: int, hidden: Sequence[int] = (8,), activation: str = "tanh", skip: bool = False) -> DAG:
    """A network of single connections that starts as layers.

    Args:
        in_features: values a sample, over all its dimensions.
        out_features: values or class scores predicted.
        hidden: neurons of each layer.
        activation: a key of `FUNCTIONS`, for every neuron.
        skip: whether each neuron and output is connected with the inputs and all layers before it, not only the last one.

    Raises:
        KeyError: unknown activation.
        ValueError: no neurons, or a width below 1.
    """
    if activation not in FUNCTIONS:
        raise KeyError(f"unknown activation {activation!r}; known are {sorted(FUNCTIONS)}.")
    if not hidden or min(in_features, out_features, *hidden) < 1:
        raise ValueError(
            f"a dag needs at least one neuron and widths of at least 1, but got {in_features, hidden, out_features}."
        )
    network = DAG(in_features, out_features, sum(hidden), activation)
    ends = [0, *itertools.accumulate((in_features, *hidden))]
    for layer, (row, stop) in enumerate(itertools.pairwise(ends[1:])):
        begin = 0 if skip else ends[layer]
        rows = slice(row - in_features, stop - in_features)
        network.connections[rows, begin:row] = True
        nn.init.kaiming_uniform_(part := torch.empty(stop - row, row - begin), a=5**0.5)
        network.weight.data[rows, begin:row] = part
        nn.init.uniform_(network.bias.data[rows], -((row - begin) ** -0.5), (row - begin) ** -0.5)
    if not skip:
        network.out.connections[:, : ends[-2]] = False
        network.out.weight.data[:, : ends[-2]] = 0.0
        nn.init.kaiming_uniform_(part := torch.empty(out_features, hidden[-1]), a=5**0.5)
        network.out.weight.data[:, ends[-2] :] = part
    return network
