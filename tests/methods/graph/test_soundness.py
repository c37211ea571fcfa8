"""Whatever is called permissible really is: the resized network computes what it must."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.graph import AttributeEdit, Element, Graph, elements, trace
from tests.support.resizing import output, randomised, resize, zeroed
from tests.support.zoo import ZOO
from tests.support.zoo_more import MORE
from tests.support.zoo_operators import OPERATORS
from tests.support.zoo_patterns import PATTERNS

EVERY = {**ZOO, **MORE, **PATTERNS, **OPERATORS}
Indices = dict[str, list[int]]

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def prepared(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Graph, list[Element]]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    factory, inputs = EVERY[name]
    module, example = randomised(factory()).eval(), inputs()
    graph = trace(module, example)
    return module, example, graph, elements(module, example, graph=graph)


def units(found: list[Element]) -> Iterator[Element]:
    yield from (e for e in found if e.permissible and e.level in ("channel", "head", "group"))


def without_one(element: Element, graph: Graph) -> Indices:
    unit = min(element.size // 2, element.size - element.quantum)
    gone = range(unit, unit + element.quantum)
    return {m.atom: [i for i in range(graph.atoms[m.atom].size) if i // m.units not in gone] for m in element.moves}


def with_one(element: Element, graph: Graph) -> Indices:
    return {m.atom: [*range(graph.atoms[m.atom].size), *[-1] * m.units * element.quantum] for m in element.moves}


def edit_sets(element: Element) -> Iterator[tuple[AttributeEdit, ...]]:
    """All of the proposed attribute edits first, then fewer."""
    for count in range(len(element.attributes), -1, -1):
        yield from itertools.combinations(element.attributes, count)


def smallest_error(resizing: Callable[[tuple[AttributeEdit, ...]], nn.Module], element: Element, inputs: tuple[Tensor, ...],
                   expected: Tensor) -> float:  # fmt: skip
    """Relative error of the best set of attribute edits; infinite when no set runs."""
    best = float("inf")
    for edits in edit_sets(element):
        try:
            found = output(resizing(edits), inputs)
        except (RuntimeError, AssertionError):
            continue
        if found.shape == expected.shape:
            error = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
            best = min(best, error.nan_to_num(nan=1e9).item())
        if best < 1e-4:
            break
    return best


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_removing_a_unit_equals_zeroing_what_makes_it(name: str) -> None:
    module, inputs, graph, found = prepared(name)
    for element in units(found):
        keep = without_one(element, graph)
        expected = output(zeroed(module, graph, keep), inputs)
        error = smallest_error(lambda edits, keep=keep: resize(module, graph, keep, edits), element, inputs, expected)
        assert error < (1e-4 if element.shrink == "exact" else float("inf")), element


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_adding_a_unit_that_nothing_uses_changes_nothing(name: str) -> None:
    module, inputs, graph, found = prepared(name)
    expected = output(module, inputs)
    for element in units(found):
        grown = with_one(element, graph)
        error = smallest_error(lambda edits, grown=grown: resize(module, graph, grown, edits), element, inputs, expected)
        assert error < (1e-4 if element.grow == "exact" else float("inf")), element
