"""A small network is trained on what the network leaves unexplained, and becomes a part of it (Ford et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.residual_fitting.chain import Chain, chain_of, why_no_chain
from coppice.methods.measures.site import site_of, sites_among, why_no_site
from coppice.methods.measures.statistics import frozen_modes, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.tensors import get_tensor

_HELD_OUT = 4
"""One of so many samples of each batch, the last ones, measures the fit and is not trained on."""


@dataclass(frozen=True)
class Residuals:
    """Samples of some batches: inputs [n, in], residuals [n, out], minus the loss' gradients at the output [n, out]."""

    inputs: Tensor
    residuals: Tensor
    descent: Tensor


@dataclass(frozen=True)
class ResidualFitting(Method):
    """Fits a small network of the same depth and activations to the residuals; where it explains enough, it is appended.

    The residual of a sample is target - output for real targets of the output's shape, else (and with `residual: gradient`)
    minus the gradient of its loss at the output. R^2 on samples that were not trained on must be above `tau`. The small
    network's units then join the hidden layers, block by block: no connections between old and new units, both added at the
    output. The function changes by exactly `step` times the small network's prediction. It has biases where the hidden layers
    do, and none at the output.

    All hidden layers grow together by what is fitted (amount `advised`, selection `all`): a layer that is given another number
    is left out and told of, and layers behind it, which need its units, with it; those before it keep their new units, which
    change nothing. For networks that are one chain of Linear
    layers and activations. The paper's threshold and way of merging are not known to us: these are ours, in its spirit.
    """

    kind = "grow"
    levels = ("channel",)
    why = "grows only where there is error that more neurons can explain"
    paper = "Ford, Winder, McClellan 2023, growing by fitting residuals (arXiv 2301.05744); details ours"
    preserves = False
    batch_norm = "networks with BatchNorm are refused"
    cost = "one forward and the gradient at the output per batch; `steps` training steps of the small network"
    advises = True

    width: int = parameter(8, "units of each hidden layer of the small network", low=1, high=4096, log=True)
    tau: float = parameter(0.05, "share of the residual's variance that must be explained", low=0.0, high=1.0)
    step: float = parameter(1.0, "factor on the prediction that is added", low=1e-3, high=10.0, log=True)
    residual: str = parameter("auto", "what is fitted", choices=("auto", "gradient"))
    steps: int = parameter(300, "of training", low=1, high=100000, log=True)
    lr: float = parameter(1e-2, "learning rate (Adam)", low=1e-5, high=1.0, log=True)
    num_batches: int = parameter(8, "batches that are fitted and measured on", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        return reason or why_no_chain(context.network) or why_no_site(context.network, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Fit; the signal `r2` says how well. Nothing is offered unless all hidden layers may grow."""
        chain = chain_of(context.network)
        names = _elements_of(context, chain, elements)
        if len(names) < len(chain.linears) - 1:
            return Measurement({})
        widths = [min(self.width, most[name]) for name in names]
        with torch.autocast(context.network.device().type, enabled=False), frozen_modes(context.network.module):
            train, held_out = self._residuals(context)
            weights = self._fitted(context, chain, widths, train)
            with torch.no_grad():
                prediction = chain.run(context.network, weights, held_out.inputs)
        require_finite("the prediction of the small network", prediction)
        r2 = _explained(held_out.residuals, prediction)
        if r2 <= self.tau:
            return Measurement({}, signals={"r2": r2})
        gain = self.step * float((held_out.descent * prediction).sum(1).mean())
        data = {name: self._part(weights, i) for i, name in enumerate(names)}
        data[names[-1]]["gain"] = torch.tensor(gain, dtype=torch.float64)
        scores = {n: torch.full((w,), max(gain, 0.0) / sum(widths)) for n, w in zip(names, widths, strict=True)}
        return Measurement(scores, data, dict(zip(names, widths, strict=True)), {"r2": r2})

    def _residuals(self, context: Context) -> tuple[Residuals, Residuals]:
        """Those to train on, and those to measure on.

        Raises:
            ValueError: no batch has two samples.
        """
        parts: tuple[list[Residuals], list[Residuals]] = ([], [])
        for inputs, targets in context.batches(self.num_batches):
            with torch.enable_grad():
                output = context.network.module(inputs)
                loss = context.loss(output, targets) * len(targets)
                descent = -torch.autograd.grad(loss, output)[0]
            fitted = descent
            if self.residual == "auto" and targets.is_floating_point() and targets.shape == output.shape:
                fitted = (targets - output).detach().to(output)
            require_finite("residuals", fitted, descent)
            cut = len(inputs) - max(1, len(inputs) // _HELD_OUT)
            for part, rows in zip(parts, (slice(0, cut), slice(cut, None)), strict=True):
                part.append(Residuals(inputs.flatten(1)[rows].to(output), fitted[rows], descent[rows]))
        if not any(len(r.inputs) for r in parts[0]):
            raise ValueError("residual fitting needs batches of at least 2 samples, to train and to measure; but got fewer.")
        train, held_out = (Residuals(*(torch.cat([getattr(r, k) for r in p]) for k in vars(p[0]))) for p in parts)
        return train, held_out

    def _fitted(
        self, context: Context, chain: Chain, widths: Sequence[int], data: Residuals
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Weights and biases of the small network; its output starts at zero."""
        sizes = [data.inputs.shape[1], *widths, data.residuals.shape[1]]
        weights: list[tuple[Tensor, Tensor | None]] = []
        for i, name in enumerate(chain.linears):
            drawn = torch.randn(sizes[i + 1], sizes[i], generator=context.generator, dtype=torch.float64) / sizes[i] ** 0.5
            last = i == len(widths)
            weight = (drawn * (0.0 if last else 1.0)).to(data.inputs).requires_grad_()
            own = getattr(context.network.module.get_submodule(name), "bias", None)
            bias = None if last or own is None else data.inputs.new_zeros(sizes[i + 1]).requires_grad_()
            weights.append((weight, bias))
        optimizer = torch.optim.Adam([p for pair in weights for p in pair if p is not None], lr=self.lr)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(chain.run(context.network, weights, data.inputs), data.residuals).backward()
                optimizer.step()
        return [(w.detach(), None if b is None else b.detach()) for w, b in weights]

    def _part(self, weights: Sequence[tuple[Tensor, Tensor | None]], layer: int) -> dict[str, Tensor]:
        """The small network's own rows and bias of one hidden layer, and the output weights where it is the last one."""
        rows, bias = weights[layer]
        part = {"rows": rows.cpu()} | ({} if bias is None else {"bias": bias.cpu()})
        if layer == len(weights) - 2:
            part["columns"] = (self.step * weights[-1][0]).cpu()
        return part | ({"behind": torch.ones(())} if layer else {})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`; values are in the shape that the plans of the layers before leave.

        Raises:
            PlanError: another number of units than were fitted.
        """
        site, data = site_of(context.network, element), measurement.data[element.name]
        rows, count = data["rows"], len(data["rows"])
        if len(units) != count:
            raise PlanError(
                f"all {count} units that were fitted must join, but {len(units)} were chosen; use the amount `advised`, or a "
                "limit that leaves room for them."
            )
        if "behind" in data:
            own = get_tensor(context.network.module, f"{site.producer}.weight").shape[1]
            rows = torch.cat([rows.new_zeros(count, own), rows], 1)
        values = {f"{site.producer}.weight:0": rows}
        if "bias" in data:
            values[f"{site.producer}.bias:0"] = data["bias"]
        if "columns" in data:
            values[f"{site.consumer}.weight:1"] = data["columns"]
        gain = float(data["gain"]) if "gain" in data else None
        return GrowPlan(element.name, count, values=values, produce="zero", consume="zero", predicted_gain=gain)


def _elements_of(context: Context, chain: Chain, elements: Sequence[Element]) -> list[str]:
    """Names of the elements of the hidden layers, in the order of the chain; those that are not offered are left out."""
    by_producer = {site.producer: name for name, site in sites_among(context.network, elements).items()}
    return [by_producer[n] for n in chain.linears[:-1] if n in by_producer]


def _explained(residuals: Tensor, prediction: Tensor) -> float:
    """R^2 around the mean of each output; 0 where there is nothing to explain."""
    residuals, prediction = residuals.double(), prediction.double()
    total = float((residuals - residuals.mean(0)).square().sum())
    return 1 - float((residuals - prediction).square().sum()) / total if total > 0 else 0.0
