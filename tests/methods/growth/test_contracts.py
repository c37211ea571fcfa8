"""Every growth method of the table keeps the contract; what each paper claims is in the files beside."""

import pytest

from methods.catalog import GROWTH, build
from tests.support.contracts import GrowthContract

VARIANTS = [
    ("random", {}), ("random", {"init": "normal"}), ("random", {"init": "orthogonal"}),
    ("net2wider", {}), ("net2wider", {"noise": 0.0}),
    ("gradmax", {}), ("gradmax", {"zero": "fan_out", "norm": "fixed"}), ("gradmax", {"zero": "fan_in"}),
]  # fmt: skip


def test_every_method_has_a_variant():
    assert {name for name, _ in VARIANTS} | {"deepen"} == set(GROWTH)


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str, scope="class")
class TestWidening(GrowthContract):
    @pytest.fixture
    def method(self, name, arguments):
        self.measures = name == "gradmax"
        return build("grow", name, arguments)


BLOCKS = [{}, {"block": "residual"}, {"block": "residual", "batch_norm_inside": True}, {"block": "duplicate"}]


@pytest.mark.parametrize("arguments", BLOCKS, ids=str, scope="class")
class TestDeepen(GrowthContract):
    amount = 1

    @pytest.fixture
    def method(self, arguments):
        return build("grow", "deepen", arguments)
