"""The short form of benchmarks/kills.py on this machine."""

from pathlib import Path

import pytest

from benchmarks.kills import here


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_campaign_ends_as_one_that_ran_through(tmp_path: Path) -> None:
    matrix = here(tmp_path, 2, 0, (3, 3), [("asha", "tpe", "mlp")], ["driver", "all, in a checkpoint"])
    assert matrix.kills.total() == 2
    assert not matrix.wrong
    assert not matrix.hung
