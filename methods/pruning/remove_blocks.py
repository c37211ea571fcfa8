"""Whole blocks that are hardly needed go (Veit et al. 2016; ShortGPT, Men et al. 2024; Huang and Wang 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.graph.calls import argument, output_of, place_of_input, with_output
from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import Seen, mean_loss, observe, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import RemovePlan
from coppice.methods.pruning.gates.block_gates import BlockGates, gate_tensors, why_no_gate
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class RemoveBlocks(Method):
    """Removes blocks: the input is passed on in the block's place, or zeros for a branch beside a skip path.

    `score` says what tells which:
    - `trial_loss`: how much the loss rises without the block, measured by doing it, one block at a time.
    - `influence`: 1 - mean cosine of what goes into the block and what comes out, over samples and positions, channels as the
      vector (0 for an identity; positions where both are 0 count as equal).
    - `gate`: |a factor on the block's residual branch|, which is trained with an L1 penalty to exactly 0; it is folded into the
      weights at the end of the branch (the last BatchNorm's, say), so that removal at 0 is exact.
    - `scale`: root mean square of those weights, without training them in another way.
    Blocks with a score of at most `tolerance` are advised. `layers: true` offers single layers that keep their input's shape as
    well (trial_loss and influence).
    """

    kind = "prune"
    levels = ("block", "layer")
    why = "blocks that hardly change what passes through them are not needed"
    paper = (
        "trial removal: Veit et al. 2016, section 4.1 (arXiv 1605.06431); influence: Men et al. 2024, ShortGPT, eq. 1 "
        "(arXiv 2403.03853); gate: Huang & Wang 2018, sparse structure selection (arXiv 1707.01213), its proximal step without "
        "momentum, with which gates do not rest at 0"
    )
    preserves = False
    batch_norm = "goes with its block"
    cost = "trial_loss: a forward for each block and batch; influence: one forward for each batch; gate, scale: nothing"
    where = ("global", "all")
    advises = True

    score: str = parameter("trial_loss", "what tells which blocks go", choices=("trial_loss", "influence", "gate", "scale"))
    layers: bool = parameter(False, "single layers too", choices=(False, True))
    num_batches: int = parameter(2, "batches over which losses and cosines are taken", low=1, high=1000)
    tolerance: float = parameter(1e-6, "blocks with at most this score are advised", low=0.0, high=10.0)
    strength: float = parameter(0.01, "weight of the L1 penalty on gates in the loss", low=0.0, high=1.0, log=True)
    rate: float = parameter(1.0, "learning rate of the gates, as a multiple of the optimizer's", low=0.0, high=100.0, log=True)
    removal: str = parameter("immediate", "blocks are removed at once", choices=("immediate",))

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and element.level == "layer" and not self.layers:
            reason = "a single layer; say layers: true to offer those"
        if reason is None and self.score in ("gate", "scale"):
            reason = why_no_gate(context.network, element)
        if reason is None and self.score == "influence" and _branch(context.network, element):
            reason = "a branch beside a skip path: what comes out of it is not what goes on; say score: trial_loss"
        return reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores, [1] for each block."""
        score_of = {"trial_loss": self._rises, "influence": self._influence, "gate": _gates, "scale": _scales}[self.score]
        scores = {name: score.detach().double().cpu().reshape(1) for name, score in score_of(context, elements).items()}
        for name, score in scores.items():
            require_finite(f"the {self.score} of {name}", score)
        return Measurement(scores, advised={name: int(float(score) <= self.tolerance) for name, score in scores.items()})

    def _rises(self, context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
        """Rise of the mean loss without each block."""
        whole = mean_loss(context, self.num_batches)
        rises = {}
        for element in elements:
            block = context.network.module.get_submodule(element.name)
            hook = block.register_forward_hook(_without(_branch(context.network, element)), with_kwargs=True)
            try:
                rises[element.name] = mean_loss(context, self.num_batches) - whole
            finally:
                hook.remove()
        return rises

    def _influence(self, context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
        """1 - mean cosine over samples and positions."""
        sums = {e.name: torch.zeros((), dtype=torch.float64) for e in elements}
        counts = dict.fromkeys(sums, 0)

        def use(seen: dict[str, Seen], inputs: Tensor) -> None:
            for name, batch in seen.items():
                cosine = cosines(batch.input, batch.output)
                sums[name] += cosine.sum().cpu()
                counts[name] += cosine.numel()

        observe(context, list(sums), use, self.num_batches, gradients=False)
        context.ranks.sum(*sums.values())
        counts = {name: context.ranks.count(number) for name, number in counts.items()}
        return {name: 1 - total / max(counts[name], 1) for name, total in sums.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> RemovePlan:
        """See `Method.plan`; a trial predicts the rise of the loss."""
        rise = float(measurement.scores[element.name]) if self.score == "trial_loss" else None
        return RemovePlan(element.name, rise)

    def companion(self, network: Network) -> Companion | None:
        """The gates, where they are what is scored."""
        return BlockGates(network, self.strength, self.rate) if self.score == "gate" else None


def cosines(before: Tensor, after: Tensor) -> Tensor:
    """Cosine at each sample and position, channels (dimension 1 of images, else the last one) as the vector; float64."""
    dim = 1 if before.ndim == 4 else -1
    a, b = before.double(), after.double()
    na, nb = a.norm(dim=dim), b.norm(dim=dim)
    cosine = (a * b).sum(dim) / (na * nb).clamp(min=1e-300)
    return torch.where((na == 0) & (nb == 0), 1.0, torch.where((na == 0) | (nb == 0), 0.0, cosine))


def _gates(context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
    """|gate| of each block that has one; without a companion (outside of training) what is folded into the weights."""
    if not isinstance(context.companion, BlockGates):
        return _scales(context, elements)
    own = context.companion.own
    return {e.name: own[e.name].abs() for e in elements if e.name in own}


def _scales(context: Context, elements: Sequence[Element]) -> dict[str, Tensor]:
    """Root mean square of the weights at the ends of each block's branches."""
    sizes = {}
    for element in elements:
        names = [n for n in gate_tensors(context.network, element.name) if n.endswith("weight")]
        every = torch.cat([get_tensor(context.network.module, n).detach().double().flatten() for n in names])
        sizes[element.name] = every.square().mean().sqrt()
    return sizes


def _branch(network: Network, element: Element) -> bool:
    call = network.graph().modules[element.name]
    return call.branch and not call.residual


def _without(branch: bool) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
    """A hook that lets a block return its input, or zeros, in the form that it returns."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> Any:
        place, output = place_of_input(args, kwargs), output_of(returned)
        assert place is not None and output is not None, "a block is given a tensor and returns one"
        return with_output(returned, torch.zeros_like(output) if branch else argument(args, kwargs, place))

    return hook
