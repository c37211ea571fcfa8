"""What Coppice's own parts must keep, for parts that you write: subclass a suite in your tests, and pytest runs all of it.

    from coppice.testing import GrowthContract

    class TestMine(GrowthContract):
        def make(self):
            return Mine()

Needs pytest. A suite tests what any part of its kind must keep; what the paper of yours claims is for you to test.
"""

import pytest

SUITES = ("body", "method", "network", "selection", "trigger")
pytest.register_assert_rewrite(*(f"coppice.testing.{name}" for name in SUITES))  # so that a failed assertion shows its values

from coppice.testing.body import BodyContract  # noqa: E402
from coppice.testing.method import GrowthContract, MethodContract, PruningContract  # noqa: E402
from coppice.testing.network import NetworkContract  # noqa: E402
from coppice.testing.selection import SelectionContract  # noqa: E402
from coppice.testing.trigger import TriggerContract  # noqa: E402

__all__ = [
    "BodyContract", "GrowthContract", "MethodContract", "NetworkContract", "PruningContract", "SelectionContract",
    "TriggerContract",
]  # fmt: skip
