"""New units that do what the existing weights cannot (TINY, Verbockhaven et al. 2024)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.gradients import fan_out_gradients, grouped, offered, sites_of
from coppice.methods.growth.first_order.path import path_of
from coppice.methods.growth.first_order.sweep import layers_of
from coppice.methods.growth.tiny.bottleneck import Bottleneck, Settings
from coppice.methods.measures.site import Site, site_of, why_no_site
from coppice.methods.measures.statistics import NonFiniteStatistics, mean_loss, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan

SEARCHED = (1.0, 0.25, 0.0625, 0.015625, 0.00390625)
"""Fractions of the step that a line search tries."""


@dataclass(frozen=True)
class Tiny(Method):
    """Units of the largest first-order decrease of the loss for the size of the change of the consumer's output that they make.

    With N the part of the desired change of the consumer's output (minus its gradient) that its own weights cannot produce, as
    the producer's input sees it, and S the second moment of that input: R = S^(-1/2) N = U Sigma V^T; incoming weights are
    S^(-1/2) U sqrt(Sigma), with a bias where the producer has one, outgoing ones V sqrt(Sigma), each times the square root of
    the step. Scores are sigma^2: per unit step, the decrease of the loss that the existing weights have no share in.

    Where the path between the layers is linear at 0, all this is exact. Elsewhere (ReLU, max-pooling) directions come from the
    path's mean derivative near 0, and the sign of a unit and its predicted gain are measured through the real path (ours).
    `natural_step` moves the existing weights of the consumer along the least-squares solution of the desired change, together
    with the growth. Convolutions are whitened with the input moment that each of the consumer's taps reads.
    """

    kind = "grow"
    levels = ("channel",)
    why = "new units for what the existing weights of a layer cannot do (expressivity bottleneck)"
    paper = "Verbockhaven et al. 2024, Growing Tiny Networks, TMLR (arXiv 2405.19816), propositions 3.1 and 3.2"
    preserves = False
    batch_norm = "new rows carry the mean and variance that new units have on the data; scale and shift undo them"
    cost = "two forward and backward passes per batch for all elements, a third behind ReLU; two decompositions for each"
    where = ("best_gain",)

    step: float = parameter(1.0, "along the desired change; new weights get its square root", low=1e-4, high=4.0, log=True)
    line_search: bool = parameter(True, "take the fraction 1, 1/4, ... 1/256 of the step with the lowest loss on the batches")
    natural_step: bool = parameter(False, "also move the consumer's existing weights by the natural gradient")
    projection: bool = parameter(True, "leave out what the existing weights can produce")
    whitening: bool = parameter(True, "measure the size of a change at the consumer, not in weights")
    threshold: float = parameter(1e-3, "singular values up to this times the largest are dropped", low=0.0, high=1.0)
    cut: float = parameter(1e-3, "ridge on the inputs' second moments, relative to their mean eigenvalue", low=0.0, high=1e-1)
    num_batches: int = parameter(1, "batches that moments are taken over", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element) or why_no_site(context.network, element)
        if reason is not None:
            return reason
        inputs, _ = next(iter(context.batches(1)))
        shape, run, like = path_of(context.network, site_of(context.network, element), inputs[:2])
        if float(run(like.new_zeros(shape)).abs().max()) > 1e-6:
            return "the activation is not 0 at 0, so a small step of new units would be a large change of the function"
        return None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Weights of new units at step 1, sigma^2, first-order gains and the natural step."""
        sites = sites_of(context, elements)
        units: dict[str, dict[str, Tensor]] = {}
        samples = len(next(iter(context.batches(1)))[1]) * self.num_batches
        for group in grouped(context, sites, squares=True):
            measured = Bottleneck(self._settings(), context, group, samples)
            measured.run()
            with torch.autocast(context.network.device().type, enabled=False):
                for name in group:
                    units[name] = context.ranks.same(measured.units(name, offered(sites[name], most[name])))
            nonlinear = {n: units[n] for n in group if not measured.linear[n] and len(units[n]["incoming"])}
            units |= self._through_the_path(context, group, nonlinear)
        for name, data in units.items():
            require_finite(f"what is measured of new units of {name}", *data.values())
            units[name] = {key: tensor.cpu() for key, tensor in data.items()}
        return Measurement({e.name: units[e.name]["scores"] for e in elements if len(units[e.name]["scores"])}, units)

    def _settings(self) -> Settings:
        return Settings(self.natural_step, self.projection, self.whitening, self.threshold, self.cut, self.num_batches)

    def _through_the_path(
        self, context: Context, group: Mapping[str, Site], units: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        """Units behind a path that is not linear at 0, with the sign that lowers the loss, and their gains."""
        incoming = {name: data["incoming"] for name, data in units.items()}
        gradients = fan_out_gradients(context, group, incoming, self.num_batches)
        return {name: _signed(units[name], gradient) for name, gradient in gradients.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        data, chosen = measurement.data[element.name], torch.tensor(list(units))
        if not self.line_search:
            return self._scaled(context, element, site, chosen, data, self.step)
        plans = [self._scaled(context, element, site, chosen, data, self.step * fraction) for fraction in reversed(SEARCHED)]
        return min(plans, key=lambda plan: _loss_after(context, plan, self.num_batches))

    def _scaled(
        self, context: Context, element: Element, site: Site, chosen: Tensor, data: Mapping[str, Tensor], step: float
    ) -> GrowPlan:
        producer, consumer = layers_of(context.network, site)
        root = step**0.5
        rows, columns = data["incoming"][chosen] * root, data["outgoing"][chosen].movedim(0, 1) * root
        entries = producer.weight[0].numel()
        dtype = producer.weight.dtype
        values = {
            f"{site.producer}.weight:0": rows[:, :entries].unflatten(1, producer.weight.shape[1:]).to(dtype),
            f"{site.consumer}.weight:1": (columns.flatten(1) if consumer.weight.dim() == 2 else columns).to(dtype),
        }
        if rows.shape[1] > entries:
            values[f"{site.producer}.bias:0"] = rows[:, entries].to(dtype)
        values |= _normalised(context, site, data, chosen, step)
        gain = float(data["gains"][chosen].sum()) * step
        plan = GrowPlan(element.name, len(chosen), produce="zero", consume="zero", values=values, predicted_gain=gain)
        if not self.natural_step:
            return plan
        own = consumer.weight[0].numel()
        adjust = {f"{site.consumer}.weight": (-step * data["natural"][:, :own]).reshape(consumer.weight.shape)}
        if consumer.bias is not None:
            adjust[f"{site.consumer}.bias"] = -step * data["natural"][:, own]
        return replace(plan, adjust=adjust, predicted_gain=gain + float(data["natural_gain"]) * step)


def _signed(data: Mapping[str, Tensor], gradients: Tensor) -> dict[str, Tensor]:
    """Each unit with its better sign, from the gradients of its outgoing weights for both signs, [2, units, weights]."""
    outgoing = data["outgoing"].flatten(1).double().cpu()
    plus, minus = ((signed.double() * outgoing).sum(1) for signed in gradients)
    gains, sign = torch.stack([-plus, minus]).max(0)
    signs = (1.0 - 2.0 * sign).to(data["incoming"])
    signed_data = {
        "gains": gains,
        "incoming": data["incoming"] * signs.view(-1, 1),
        "outgoing": data["outgoing"] * signs.view(-1, *[1] * (data["outgoing"].dim() - 1)),
    }
    if "mean" in data:
        signed_data["mean"] = data["mean"] * signs.to(data["mean"])
    return {**data, **signed_data}


def _normalised(context: Context, site: Site, data: Mapping[str, Tensor], chosen: Tensor, step: float) -> dict[str, Tensor]:
    """Rows of the BatchNorm between, so that it changes nothing: with the statistics of the new units, and what undoes them."""
    if site.batch_norm is None:
        return {}
    norm = context.network.module.get_submodule(site.batch_norm)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    mean, variance = data["mean"][chosen] * step**0.5, data["variance"][chosen] * step
    rows = {"running_mean": mean, "running_var": variance}
    if norm.affine:
        rows |= {"weight": (rows["running_var"] + norm.eps).sqrt(), "bias": mean.clone()}
    else:
        rows = {"running_mean": torch.zeros_like(mean), "running_var": torch.full_like(mean, 1.0 - norm.eps)}
    if norm.running_mean is None:
        rows = {key: value for key, value in rows.items() if not key.startswith("running")}
    return {f"{site.batch_norm}.{key}:0": value for key, value in rows.items()}


def _loss_after(context: Context, plan: GrowPlan, num_batches: int) -> float:
    """Mean loss of a copy of the network that is changed by `plan`; infinite where it is not finite."""
    network = copy.deepcopy(context.network)
    apply(network, plan)
    with torch.no_grad():
        try:
            return float(mean_loss(replace(context, network=network), num_batches))
        except NonFiniteStatistics:
            return float("inf")
