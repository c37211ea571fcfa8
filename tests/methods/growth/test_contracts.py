"""Every growth method of the table keeps the contract; what each paper claims is in the files beside."""

from pathlib import Path

import pytest

from coppice.methods.catalog import GROWTH, build
from coppice.testing.method import GrowthContract
from tests.methods import variants


def test_every_method_has_a_variant_or_a_suite_of_its_own():
    assert set(variants.GROWTH) | set(variants.OWN_SUITE) >= set(GROWTH)
    for name, file in variants.OWN_SUITE.items():
        assert "Contract)" in (Path(__file__).parent.parent / file).read_text(), name


@pytest.mark.parametrize(("name", "arguments"), variants.cases(variants.GROWTH), ids=str, scope="class")
class TestContract(GrowthContract):
    @pytest.fixture
    def method(self, name, arguments):
        self.measures = name not in variants.SILENT
        method = build("grow", name, arguments)
        if set(method.levels) <= {"insertion"}:
            self.amount = 1
        return method
