"""Checkpoints are atomic, verified on load, and never silently wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.checkpoint import Checkpoint, CheckpointError
from tests.support.waiting import until


def content(seed: int = 0, size: int = 8) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(
        {"factory": "x"}, {"w": torch.randn(size, size), "b": torch.zeros(0)}, {"w.m": torch.randn(size)}, {"epoch": seed}
    )


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    return (
        a.architecture == b.architecture
        and a.state == b.state
        and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
        and all(torch.equal(a.optimizer[k], b.optimizer[k]) for k in a.optimizer)
    )


def test_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path, 3, content(3))
    assert path.name == "000003"
    assert equal(checkpoints.read(path), content(3))


FILES = ["architecture.json", "model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "edit", "delete"])
def test_damage_names_the_file_and_the_previous_one_is_used(tmp_path: Path, name: str, damage: str) -> None:
    checkpoints.write(tmp_path, 1, content(1))
    path = checkpoints.write(tmp_path, 2, content(2))
    file = path / name
    old = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(old[:-3])
    elif damage == "edit":
        file.write_bytes(old[:-2] + bytes([old[-2] ^ 1]) + old[-1:])
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=name) as caught:
        checkpoints.read(path)
    if damage == "truncate" and name != checkpoints.MANIFEST:
        assert f"must have {len(old)} bytes, but has {len(old) - 3}" in str(caught.value)
    found = checkpoints.latest(tmp_path)
    assert found is not None
    assert found[0].name == "000001" and equal(found[1], content(1))
    assert len(found[2]) == 1 and name in found[2][0]


def test_none_valid_is_an_error_and_none_at_all_is_none(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "nothing") is None
    path = checkpoints.write(tmp_path, 1, content())
    (path / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="no valid checkpoint is left"):
        checkpoints.latest(tmp_path)


def test_an_unfinished_write_does_not_exist(tmp_path: Path) -> None:
    """A process killed at any moment of writing leaves only whole checkpoints behind."""
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom coppice.orchestrator.folder import checkpoint as c\n"
        "x = c.Checkpoint({}, {'w': torch.randn(400, 400)}, {}, {})\n"
        "print('go', flush=True)\n"
        "for i in range(100000): c.write(Path(sys.argv[1]), i, x)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    until(lambda: len(checkpoints.available(tmp_path)) > 5, "some checkpoints", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    written = checkpoints.available(tmp_path)
    assert len(written) > 1
    for path in written:
        checkpoints.read(path)
    checkpoints.keep_newest(tmp_path, 2)
    assert checkpoints.available(tmp_path) == written[-2:]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_keeps_earlier_checkpoints(tmp_path: Path) -> None:
    """A file size limit makes the real write fail in the middle, as a full disk does."""
    checkpoints.write(tmp_path, 1, content(1))
    script = (
        "import resource, signal, sys, torch\nfrom pathlib import Path\nfrom coppice.orchestrator.folder import checkpoint as c\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: c.write(Path(sys.argv[1]), 2, c.Checkpoint({}, {'w': torch.randn(400, 400)}, {}, {}))\n"
        "except c.CheckpointError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert "000002" in out and "earlier checkpoints are untouched" in out
    assert [p.name for p in checkpoints.available(tmp_path)] == ["000001"]
    assert not list(tmp_path.glob(".*.tmp"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20000


def test_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path, 1, content())
    manifest = json.loads((path / "MANIFEST.json").read_text())
    (path / "MANIFEST.json").write_text(json.dumps({**manifest, "format": "coppice-checkpoint/99"}))
    with pytest.raises(CheckpointError, match="coppice-checkpoint/1"):
        checkpoints.read(path)
