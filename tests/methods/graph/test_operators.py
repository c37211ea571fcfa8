"""Less common operators leave free what they do not mix, and say what they do mix (`test_soundness` resizes and runs each)."""

from collections.abc import Callable

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.graph import elements, trace
from coppice.methods.graph.expr import atom_names
from tests.support.resizing import resize
from tests.support.zoo_operators import OPERATORS
from tests.support.zoo_patterns import Made

OTHERS = {
    "experts": "up:1",
    "projected": "r.weight_ih_l0:0",
    "both_ways_projected": "r.weight_ih_l0:0",
    "lstm_cell": "r.weight_ih:0",
    "gru_cell": "r.weight_ih:0",
    "rnn_cell": "r.weight_ih:0",
    "standardised": "l.weight:0",
    "normalised_rows": "l.weight:0",
}
"""Another dimension that must be free."""


@pytest.mark.parametrize("name", OPERATORS)
def test_the_width_is_free(name: str) -> None:
    torch.manual_seed(0)
    factory, inputs = OPERATORS[name]
    network, example = factory().eval(), inputs()
    graph = trace(network, example)
    permissible = {move.atom for e in elements(network, example, graph=graph) if e.permissible for move in e.moves}
    for dimension in ("a.weight:0", OTHERS.get(name, "a.weight:0")):
        tensor, _, position = dimension.rpartition(":")
        assert atom_names(graph.tensors[tensor][int(position)]) & permissible, graph.frozen


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda h: F.channel_shuffle(h.flatten(0, 1)[..., None], 2)[..., 0].view(h.shape), "the 2 groups of a channel shuffle"),
        (lambda h: torch.linalg.inv(h[:, :, None] * h[..., None])[..., 0] + h, "a matrix whose inv is taken in linalg_inv_ex at"),
        (lambda h: h.gather(-1, h.argsort(-1)), "sort at"),
        (lambda h: torch.fft.fft(h).real, "_fft_r2c at"),
        (lambda h: h.index_select(-1, torch.arange(8)), "index_select at"),
        (lambda h: torch.bincount(h.flatten().long().abs()).sum() + h, "told apart by their number in bincount at"),
        (lambda h: h.take(torch.zeros(2, 5, 8, dtype=torch.long)), "told apart by their number in take at"),
    ],
)
def test_what_is_mixed_says_so(middle: Callable[[Tensor], Tensor], reason: str) -> None:
    network = Made(lambda m, x: m.o(middle(m.a(x))), a=nn.Linear(6, 8), o=nn.Linear(8, 3))
    found = [f for f in trace(network, (torch.randn(2, 5, 6),)).frozen if f.name.startswith("a.weight:0")]
    assert any(reason in f.reason for f in found), found


def test_a_unit_of_zeros_makes_a_sum_of_exponentials_that_is_not_zero() -> None:
    network = Made(lambda m, x: m.o(m.a(x).logsumexp(1)), a=nn.Linear(6, 8), o=nn.Linear(8, 3))
    found = {e.name: e for e in elements(network, (torch.randn(2, 5, 6),))}
    assert (found["a.weight:0"].grow, found["a.weight:0"].shrink) == ("exact", "inexact")


@torch.library.custom_op("coppice_tests::relu", mutates_args=())
def _not_what_it_is_called(x: Tensor) -> Tensor:
    return x.flip(-1).clone()


@_not_what_it_is_called.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_operator_of_somebody_else_is_not_judged_by_its_name() -> None:
    network = Made(lambda m, x: m.o(_not_what_it_is_called(m.a(x))), a=nn.Linear(6, 8), o=nn.Linear(8, 3))
    frozen = {f.name: f.reason for f in trace(network, (torch.randn(2, 6),)).frozen}
    assert frozen["a.weight:0"].startswith("no rule for the operator relu at ")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["fbgemm", "qnnpack"])
def test_observed_layers_have_free_widths_and_say_that_their_grid_moves(backend: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(quantization.QuantStub(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).train()
    plain.qconfig = quantization.get_default_qat_qconfig(backend)
    network, example = quantization.prepare_qat(plain), (torch.randn(16, 6),)
    network(*example)
    graph = trace(network, example)
    element = {e.name: e for e in elements(network, example, graph=graph)}["1.weight:0"]
    assert (element.grow, element.shrink) == ("inexact", "inexact")
    wider = resize(network, graph, {"1.weight:0": [*range(8), -1, -1]}, element.attributes)
    assert wider(*example).shape == (16, 3)
    if backend == "fbgemm":
        assert wider.get_parameter("1.weight").shape[0] == wider.get_buffer("1.weight_fake_quant.scale").shape[0] == 10
