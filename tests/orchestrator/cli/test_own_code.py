"""Errors in the user's own modules: their frames only, what to do, exit code 2."""

from pathlib import Path

import pytest

from coppice.references import UnresolvedName, resolve
from coppice.user_code import users_frames, what_went_wrong
from tests.orchestrator.cli.test_text_stays_text import CAMPAIGN, coppice

MODULES = {
    "a syntax error": ("def build(a b):\n    pass\n", "SyntaxError", "nets.py, line 1"),
    "an unknown name": ("import torch\nLAYERS = UNDEFINED\n", "NameError: name 'UNDEFINED' is not defined", "nets.py, line 2"),
    "a missing package": ("import torch\nimport no_such_package\n", "no_such_package", "nets"),
    "a module that ends the program": ("import sys\nsys.exit('usage: nets.py FILE')\n", "usage: nets.py FILE", "nets.py, line 2"),
    "an error when it is built": (
        "def inner():\n    raise RuntimeError('no width fits')\n\n\ndef build():\n    inner()\n", "RuntimeError: no width fits",
        "nets.py, line 2, in inner",
    ),
    "an error in its forward": (
        "import torch\n\n\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        return x.nothing\n\n\n"
        "def build():\n    return Net(64, 10)\n", "AttributeError", "nets.py, line 6, in forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MODULES)
def test_its_own_frames_are_shown_and_no_others(tmp_path: Path, case: str) -> None:
    text, what, where = MODULES[case]
    (tmp_path / "nets.py").write_text(text)
    (tmp_path / "a.yaml").write_text(CAMPAIGN)
    done = coppice(tmp_path, "plan", "a.yaml", "--samples", "1")
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert what in done.stderr and where in done.stderr
    assert "Traceback" not in done.stderr and "orchestrator/" not in done.stderr and "site-packages" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_all_frames_are_shown_to_who_asks(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULES["an error when it is built"][0])
    (tmp_path / "a.yaml").write_text(CAMPAIGN)
    assert "Traceback" in coppice(tmp_path, "plan", "a.yaml", COPPICE_TRACEBACK="1").stderr


def test_errors_of_ours_and_of_libraries_have_no_frames_of_the_user() -> None:
    with pytest.raises(UnresolvedName) as ours:
        resolve("network", "no_such:thing", {})
    frames = [f for f in users_frames(ours.value) if f.filename != __file__]
    assert frames == [] and "no_such" in what_went_wrong(ours.value)
