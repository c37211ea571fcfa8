"""Every pruning method of the table keeps the contract; what each paper claims is in the files beside."""

import pytest

from coppice.methods.catalog import PRUNING, build
from coppice.testing.method import PruningContract
from tests.methods import variants


def test_every_method_has_a_variant_or_a_suite_of_its_own():
    assert set(variants.PRUNING) | set(variants.OWN_SUITE) >= set(PRUNING)


@pytest.mark.parametrize(("name", "arguments"), variants.cases(variants.PRUNING), ids=str, scope="class")
class TestContract(PruningContract):
    @pytest.fixture
    def method(self, name, arguments):
        method = build("prune", name, arguments)
        if set(method.levels) <= {"layer", "block"}:
            self.amount = 1
        return method
