"""A copy of a network with every candidate of growth in it at once: splits of all units, new units, new residual blocks.

Each candidate has a gate. At gates of 0 the copy computes what the network does; at 1 the candidates are as large as they were
trained to be. With base weights W of a layer that makes units (rows) and of the one behind that uses them (columns):

    rows     [W - g v;  W + g v;  a]        for splits v, then new units a
    columns  [W / 2,    W / 2,    g c]      with outgoing weights c of new units
    blocks   x + g L relu(F x + f)

A layer that does both has the rows' changes in its old columns only, and new columns in its old rows (and their copies) only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from coppice.methods.growth.firefly.candidates import DepthCandidate, TrainedTensor, WidthCandidates
from coppice.methods.network import LossFunction, Network
from coppice.methods.plan import GrowPlan, InsertPlan
from coppice.methods.surgery import layers
from coppice.methods.surgery.carry_out import resize_all
from coppice.methods.surgery.resize import widening
from coppice.methods.surgery.tensors import get_tensor


@dataclass
class Supernet:
    """The copy, and what its tensors are for given gates."""

    network: Network
    wide: Mapping[str, WidthCandidates]
    deep: Mapping[str, DepthCandidate]
    inside: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def build(network: Network, wide: Mapping[str, WidthCandidates], deep: Mapping[str, DepthCandidate]) -> Supernet:
        """Make the copy; the network is not touched, nor is the global random number generator.

        Blocks come in from behind: one in front of a residual block takes away the place behind it.
        """
        grown = replace(
            network, module=copy.deepcopy(network.module), edits=list(network.edits), attributes=dict(network.attributes),
            masks=dict(network.masks), lineage=[],
        )  # fmt: skip
        made = Supernet(grown, wide, deep)
        with torch.random.fork_rng(devices=[]):
            resizes = []
            for name, candidates in wide.items():
                size, new = candidates.site.size, candidates.new
                plan = GrowPlan(name, size + new, sources=(*range(size), *[-1] * new), produce="zero")
                resizes.append(widening(grown.element(name), plan))
            resize_all(grown, resizes, [])
            for name, block in reversed(list(deep.items())):
                added = layers.insert(grown, InsertPlan(name, block.kind, {"width": block.width}))
                made.inside[name] = added[0][0].removesuffix(".first.weight")
        grown.module.eval().requires_grad_(False)
        return made

    def trained(self) -> Iterable[TrainedTensor]:
        """Everything that is trained."""
        for candidates in self.wide.values():
            yield from (f for f in (candidates.splits, candidates.fan_in, candidates.fan_out) if f is not None)
        for block in self.deep.values():
            yield from block.tensors.values()

    def gates(self, value: float) -> dict[str, Tensor]:
        """A gate for each unit's split and then each new unit of a site, one for each block; all of that value."""
        like = next(self.network.module.parameters())
        sizes = {n: c.site.size + c.new for n, c in self.wide.items()} | dict.fromkeys(self.deep, 1)
        return {n: like.new_full((size,), value) for n, size in sizes.items()}

    def loss(self, gates: Mapping[str, Tensor], loss: LossFunction, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return loss(functional_call(self.network.module, self.tensors(gates), (inputs,)), targets)

    def tensors(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the copy that candidates change, by name."""
        makes = {f"{c.site.producer}.weight": n for n, c in self.wide.items()}
        uses = {f"{c.site.consumer}.weight": n for n, c in self.wide.items()}
        changed: dict[str, Tensor] = {}
        for name in {**makes, **uses}:
            tensor = get_tensor(self.network.module, name)
            before, own = self.wide.get(uses.get(name, "")), self.wide.get(makes.get(name, ""))
            if own is not None:
                added = own.row_changes(gates[makes[name]])
                tensor = tensor + (added if before is None else before.columns(added, before.site.taps))
            new = None if before is None else before.column_changes(gates[uses[name]])
            if new is not None:
                tensor = tensor + (new if own is None else own.rows(new))
            changed[name] = tensor
        for name in self.deep:
            changed |= self._block(name, gates[name])
        return changed

    def _block(self, name: str, gate: Tensor) -> dict[str, Tensor]:
        block, inside = self.deep[name], self.inside[name]
        first, last = block.tensors["first"].tensor, block.tensors["last"].tensor * gate
        if block.owner in self.wide:
            first, last = self.wide[block.owner].columns(first, 1), self.wide[block.owner].rows(last)
        return {
            f"{inside}.first.weight": first, f"{inside}.first.bias": block.tensors["bias"].tensor, f"{inside}.last.weight": last,
        }  # fmt: skip
