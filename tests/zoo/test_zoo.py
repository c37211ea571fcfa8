"""The zoo: what is offered for networks that nobody here wrote holds. The short form takes some of them, the long form all.

`python -m tests.zoo` prints the same as a table.
"""

import importlib.util
import warnings

import pytest
import torch

if not all(importlib.util.find_spec(name) for name in ("transformers", "timm")):
    pytest.skip("the extra [zoo] is not installed", allow_module_level=True)

from tests.zoo.networks import NETWORKS, network
from tests.zoo.table import ENOUGH, measured

SHORT = ("timm_mixer", "gcn", "gin", "sage", "fno", "kan")


@pytest.fixture(autouse=True)
def quiet_and_alone():
    """One thread; what the libraries warn of is theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


def test_there_are_enough_networks_and_each_is_tiny() -> None:
    assert len(NETWORKS) >= 50
    assert all(network(name).num_parameters() < 400_000 for name in SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_what_is_offered_holds(name: str) -> None:
    assert measured(name).faults == []


@pytest.mark.long
def test_what_is_offered_holds_in_every_network() -> None:
    rows = [measured(name) for name in NETWORKS]
    assert {row.name: row.faults for row in rows if row.faults} == {}
    assert sum(row.coverage.share >= ENOUGH for row in rows) >= 0.9 * len(rows)
