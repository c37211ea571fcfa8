"""Every pruning method of the table keeps the contract; what each paper claims is in the files beside."""

import pytest

from methods.catalog import PRUNING, build
from tests.support.contracts import PruningContract

VARIANTS = [
    ("magnitude", {}), ("magnitude", {"normaliser": "size"}), ("magnitude", {"normaliser": "none"}), ("slimming", {}),
    ("slimming", {"reduce": "mean"}), ("l1", {}),
]  # fmt: skip


def test_every_method_has_a_variant():
    assert {name for name, _ in VARIANTS} | {"magnitude_weights", "remove_blocks"} == set(PRUNING)


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str, scope="class")
class TestUnits(PruningContract):
    @pytest.fixture
    def method(self, name, arguments):
        return build("prune", name, arguments)


class TestAbsorb(PruningContract):
    @pytest.fixture
    def method(self):
        return build("prune", "magnitude", {"removal": "absorb"})


class TestWeights(PruningContract):
    @pytest.fixture
    def method(self):
        return build("prune", "magnitude_weights", {})


@pytest.mark.parametrize("arguments", [{}, {"layers": True}], ids=str, scope="class")
class TestBlocks(PruningContract):
    amount = 1

    @pytest.fixture
    def method(self, arguments):
        return build("prune", "remove_blocks", arguments)
