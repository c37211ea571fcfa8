"""A real Slurm, started once for all tests that ask for it, whole and idle before each."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm.cluster import OURS, Cluster, missing_tools
from tests.support.slurm.processes import remove_tree
from tests.support.slurm.stand_ins import Stage


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[Cluster]:
    missing = missing_tools()
    if missing:
        told = f"these tests need Slurm, but {', '.join(missing)} are not installed (make slurm)"
        (pytest.fail if os.environ.get("COPPICE_REQUIRE_SLURM") == "1" else pytest.skip)(told)
    state = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: paths of sockets end at 108 bytes
    cluster = Cluster(state)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        remove_tree(state)


@pytest.fixture
def slurm(slurm_session: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with this process pointed at it."""
    for name in [n for n in os.environ if n.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(slurm_session.settings.conf))
    yield slurm_session
    slurm_session.restore()


@pytest.fixture
def machines(slurm: Cluster) -> Cluster:
    """The cluster, where its nodes are machines of their own."""
    if not slurm.settings.namespaces:
        pytest.skip("needs nodes with a network of their own (root)")
    return slurm


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A broker before stand-ins of Slurm's commands."""
    return Stage(tmp_path, monkeypatch)
