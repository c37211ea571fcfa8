"""A Ray for tests of campaigns, and small campaigns."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.operations.status import TrialStatus, status
from coppice.orchestrator.placement.local.placement import local
from tests.support.waiting import until

BODY = "tests.support.bodies:Quadratic"
DRIVER = """
import sys
from coppice.orchestrator.campaign import run
from coppice.orchestrator.config.models import Campaign
if __name__ == "__main__":
    outcome = run(Campaign.model_validate_json(sys.argv[1]), resume="resume" in sys.argv)
    print(outcome.state, outcome.signal)
"""


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with local(LocalPlacement(cpus=2)):
        yield


def campaign(root: Path, arguments: dict[str, Any] | None = None, **changes: Any) -> Campaign:
    content: dict[str, Any] = {
        "name": "c",
        "root": root,
        "task": {"dataset": "digits", "network": "mlp", "network_args": arguments or {"x": {"uniform": [0, 1]}}},
        "training": {"epochs": 3},
        "search": {"trials": 4, "sampler": "random"},
        "body": BODY,
    }
    return Campaign.model_validate({**content, **changes})


def driver(spec: Campaign, *, resume: bool = False) -> subprocess.Popen[bytes]:
    """The campaign in a process of its own, with a Ray of its own."""
    command = [sys.executable, "-c", DRIVER, spec.model_dump_json(by_alias=True), *(["resume"] if resume else [])]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)


@contextlib.contextmanager
def driving(spec: Campaign) -> Iterator[subprocess.Popen[bytes]]:
    """The campaign in a process of its own, which is killed when the test is over."""
    process = driver(spec)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(folder: Path, num_finished: int) -> list[TrialStatus]:
    """Until that many trials have finished and another one has done an epoch."""

    def far_enough() -> list[TrialStatus]:
        found = status(folder) if (folder / "campaign.lock.json").exists() else []
        under_way = any(t.state == "running" and t.epoch for t in found)
        return found if under_way and sum(t.state == "finished" for t in found) >= num_finished else []

    found: list[TrialStatus] = until(far_enough, f"{num_finished} trials to have finished, and another to be under way")
    return found
