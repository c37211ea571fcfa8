"""Linear layers that work on each token of a sequence: what is measured there is what is measured on the tokens one by one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.catalog import build
from coppice.methods.growth.first_order.effective_rank import effective_ranks
from coppice.methods.measures.site import site_of, why_no_site
from coppice.methods.method import Context
from coppice.methods.network import Network

SAMPLES, TOKENS, FEATURES, CLASSES = 8, 5, 6, 4
ELEMENT = "0.weight:0"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradmax": ("grow", {"zero": "fan_out"}),
    "gradmax_opt": ("grow", {"steps": 5}),
    "nest": ("grow", {}),
    "tiny": ("grow", {}),
    "splitting": ("grow", {}),
    "firefly": ("grow", {"steps": 3}),
    "senn": ("grow", {"draws": 0, "steps": 2}),
    "north": ("grow", {"init": "select"}),
    "variance_transfer": ("grow", {}),
    "condense": ("prune", {}),
}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())


def network(tokens: bool) -> tuple[Network, Context]:
    """The same weights and the same data, as sequences or as single vectors."""
    draws = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(FEATURES, 7), nn.ReLU(), nn.Linear(7, CLASSES)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64))
    inputs = torch.randn(SAMPLES, TOKENS, FEATURES, generator=draws, dtype=torch.float64)
    targets = torch.randint(CLASSES, (SAMPLES, TOKENS), generator=draws)
    if not tokens:
        inputs, targets = inputs.flatten(0, 1), targets.flatten()

    def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield inputs, targets

    made = Network(module, "torch.nn:Sequential", {}, (inputs[:2],))
    return made, Context(made, batches, loss, torch.Generator().manual_seed(1))


def measured(tokens: bool, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    kind, arguments = METHODS[name]
    made, context = network(tokens)
    method, element = build(kind, name, arguments), made.element(ELEMENT)
    context = replace(context, companion=method.companion(made))
    assert method.accepts(context, element) is None
    measurement = method.measure(context, [element], {ELEMENT: 3})
    plan = method.plan(context, element, [0, 1], measurement)
    return measurement.scores[ELEMENT], {**getattr(plan, "values", {}), **getattr(plan, "offsets", {})}


@pytest.mark.parametrize("name", METHODS)
def test_tokens_count_as_samples(name: str) -> None:
    scores, values = measured(True, name)
    single_scores, single_values = measured(False, name)
    if name == "tiny":  # its metric is a sum over positions, as it is for convolutions
        scores, single_scores = scores / scores[0], single_scores / single_scores[0]
        values, single_values = ({k: v / v.norm() for k, v in some.items()} for some in (values, single_values))
    torch.testing.assert_close(scores, single_scores, rtol=1e-6, atol=1e-9)
    assert values.keys() == single_values.keys()
    for key, value in values.items():
        torch.testing.assert_close(value, single_values[key], rtol=1e-5, atol=1e-8)


def test_the_rank_of_activations_is_over_tokens() -> None:
    ranks = []
    for tokens in (True, False):
        made, context = network(tokens)
        ranks.append(effective_ranks(context, {"": site_of(made, made.element(ELEMENT))}, 1, 0.01))
    assert ranks[0] == ranks[1]


class MeanOverTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(FEATURES, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)).mean(1))


def test_layers_on_different_positions_are_refused() -> None:
    made = Network(MeanOverTokens(), "tests.methods.growth.test_tokens:MeanOverTokens", {}, (torch.randn(2, TOKENS, FEATURES),))
    assert "different positions" in str(why_no_site(made, made.element("up.weight:0")))


def test_too_many_outputs_for_their_curvature_are_refused_before_anything_is_measured() -> None:
    made, context = network(True)
    made.module[2] = nn.Linear(7, 100).double()
    wide = Network(made.module, "torch.nn:Sequential", {}, made.example_inputs)
    reason = build("grow", "senn", {}).accepts(Context(wide, context.batches, loss, context.generator), wide.element(ELEMENT))
    assert reason is not None and "500 numbers per sample" in reason
