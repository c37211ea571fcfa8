"""Tracing leaves no trace, is the same in every process, and says why something is frozen."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.graph import Graph, trace
from tests.support.zoo import ZOO
from tests.support.zoo_more import MORE
from tests.support.zoo_patterns import Made


def reasons(graph: Graph) -> dict[str, str]:
    return {f.name: f.reason for f in graph.frozen}


def linear_pair(forward: Callable[[Any, Tensor], Tensor], hidden: int = 8) -> Graph:
    return trace(Made(forward, a=nn.Linear(12, hidden), o=nn.Linear(hidden, 2)), (torch.randn(2, 5, 12),))


@pytest.mark.parametrize("name", ["resnet", "lstm", "datadep", "tied_lm", "inception", "moe"])
def test_the_module_is_as_before(name: str) -> None:
    factory, inputs = {**ZOO, **MORE}[name]
    module, example = factory(), inputs()
    module.train()
    next(module.children()).eval()
    before = {key: (id(t), t.clone(), t.requires_grad) for key, t in [*module.named_parameters(), *module.named_buffers()]}
    modes = [m.training for m in module.modules()]
    keys = [list(vars(m)) for m in module.modules()]
    generator = torch.get_rng_state()
    trace(module, example)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [m.training for m in module.modules()] == modes
    assert [list(vars(m)) for m in module.modules()] == keys
    assert not any(m._forward_hooks for m in module.modules())
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        identity, value, grad = before[key]
        assert (id(tensor), tensor.requires_grad) == (identity, grad)
        assert torch.equal(tensor, value)
    if name == "lstm":
        names = module.rnn._flat_weights_names
        assert all(w is getattr(module.rnn, n) for w, n in zip(module.rnn._flat_weights, names, strict=True))


def test_a_failing_forward_restores_the_module_too() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.note = m.a(x)
        raise ValueError("a fault of the user")

    module = Made(forward, a=nn.Linear(12, 8))
    weight = module.a.weight
    with pytest.raises(ValueError, match="a fault of the user") as caught:
        trace(module, (torch.randn(2, 12),))
    assert caught.value.__context__ is None
    assert module.a.weight is weight
    assert module.training
    assert not hasattr(module, "note")


def test_a_forward_without_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="must return tensors"):
        trace(Made(lambda m, x: None, a=nn.Linear(2, 2)), (torch.randn(1, 2),))


def test_lazy_parameters_are_refused_by_name() -> None:
    module = nn.Sequential()
    module.append(nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"'0\.weight' is lazy"):
        trace(module, (torch.randn(1, 2),))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_tied_tensors_are_one() -> None:
    graph = trace(ZOO["tied_lm"][0](), ZOO["tied_lm"][1]())
    assert graph.aliases == {"lm.weight": "tok.weight"}
    assert "lm.weight" not in graph.tensors


@pytest.mark.parametrize("name", ["vit_gqa", "group_shuffle"])
def test_names_are_the_same_in_another_process(name: str) -> None:
    code = (
        "import json, sys; from tests.support.zoo import ZOO; from coppice.methods.graph import elements\n"
        f"factory, inputs = ZOO[{name!r}]; print(json.dumps([[e.name, e.size, e.reason] for e in elements(factory(), inputs())]))"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}).stdout
        for s in ("1", "2")
    }
    assert len(seen) == 1
    assert len(json.loads(seen.pop())) > 4


def test_names_stay_after_a_resize() -> None:
    first = trace(ZOO["vit_sep"][0](num_heads=4, width=32), ZOO["vit_sep"][1]())
    second = trace(ZOO["vit_sep"][0](num_heads=2, width=32), ZOO["vit_sep"][1]())
    assert list(first.atoms) == list(second.atoms)


def test_module_calls_know_residual_blocks_and_branches() -> None:
    graph = trace(ZOO["vit_hand"][0](), ZOO["vit_hand"][1]())
    assert graph.modules["blocks.0"].residual
    assert graph.modules["blocks.0.attn"].branch
    assert not graph.modules["blocks.0.n1"].branch
    resnet = trace(ZOO["resnet"][0](), ZOO["resnet"][1]()).modules
    assert [resnet[f"layers.{i}"].residual for i in range(4)] == [True, True, False, False]
    shared = trace(ZOO["shared"][0](), ZOO["shared"][1]()).modules
    assert shared["conv"].calls == 2


def test_a_number_in_a_view_freezes_and_names_its_line() -> None:
    line = sys._getframe().f_lineno + 3

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.a(x).view(2, 5, 4, 2).transpose(-1, -2).flatten(2))

    found = reasons(linear_pair(forward))
    assert found["a.weight:0"] == f"the number 4 in view at test_trace.py:{line}"


@pytest.mark.parametrize(
    ("forward", "free"),
    [
        (lambda m, x: m.o(torch.cat([m.a(x)[..., :-4], m.a(x)[..., 4:]], -1)), False),
        (lambda m, x: m.o(torch.cat(m.a(x).chunk(2, -1)[::-1], -1)), True),
        (lambda m, x: m.o(torch.cat(m.a(x).split(4, -1)[:1], -1)), False),
        (lambda m, x: m.o(m.a(x).flip(-1)), False),
        (lambda m, x: m.o(m.a(x).roll(1, -1)), False),
        (lambda m, x: m.o(m.a(x).cumsum(-1)), False),
        (lambda m, x: m.o(m.a(x).sort(-1)[0]), False),
        (lambda m, x: m.o(m.a(x) + torch.arange(m.a.out_features)), False),
        (lambda m, x: m.o(m.a(x) + torch.zeros(2, 5, m.a.out_features)), True),
        (lambda m, x: m.o(m.a(x) + torch.zeros(2, 5, 8)), False),
        (lambda m, x: m.o(m.a(x) * m.a(x).softmax(-1)), True),
        (lambda m, x: m.o(torch.fft.fft(m.a(x)).real), False),
        (lambda m, x: m.o(m.a(x).gather(-1, torch.zeros(2, 5, 8, dtype=torch.long))), False),
        (lambda m, x: m.o(nn.functional.avg_pool1d(m.a(x), 3, 1, 1)), False),
        (lambda m, x: m.o(nn.functional.normalize(m.a(x), dim=-1)), True),
        (lambda m, x: m.o(m.a(x).as_strided((2, 5, 8), (40, 8, 1))), False),
    ],
)
def test_only_what_is_understood_stays_free(forward: Callable[[Any, Tensor], Tensor], free: bool) -> None:
    graph = linear_pair(forward, hidden=8)
    assert bool(graph.atoms) == free, (list(graph.atoms), reasons(graph))


def test_reasons_say_what_happened() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    found = reasons(trace(module, (torch.randn(2, 3, 8, 8),)))
    assert found["0.weight:1"] == "input of the network"
    assert found["2.weight:0"] == "output of the network"
    assert found["0.weight:2"] == "kernel size"


def test_unused_parameters_are_named() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(x)

    found = reasons(trace(Made(forward, a=nn.Linear(12, 8), o=nn.Linear(12, 2)), (torch.randn(2, 12),)))
    assert found["a.weight:0"] == found["a.weight:1"] == "never used by the forward"


def test_the_training_branch_is_seen() -> None:
    graph = trace(MORE["inception"][0](), MORE["inception"][1]())
    assert any(o.tensor == "aux.weight" for o in graph.atoms["d.0.weight:0"].occurrences)


def test_a_module_that_cannot_be_copied_is_traced() -> None:
    module = nn.Linear(4, 4)
    module.handle = (i for i in range(3))
    with pytest.raises(TypeError):
        copy.deepcopy(module)
    assert trace(nn.Sequential(module, nn.Linear(4, 2)), (torch.randn(1, 4),)).atoms


def test_units_that_nothing_uses_are_frozen() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.a(x)
        return m.o(x)

    found = reasons(trace(Made(forward, a=nn.Linear(12, 8), o=nn.Linear(12, 2)), (torch.randn(2, 12),)))
    assert found["a.weight:0"] == "no parameter uses its units"


def test_an_unknown_operator_freezes_every_tensor_it_takes_even_in_lists() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        torch._foreach_add([y, y], 1.0)
        return m.o(y)

    found = reasons(trace(Made(forward, a=nn.Linear(12, 8), o=nn.Linear(8, 2)), (torch.randn(2, 12),)))
    assert found["a.weight:0"].startswith("no rule for the operator _foreach_add at test_trace.py:")
