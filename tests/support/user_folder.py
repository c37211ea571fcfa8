"""The folder of a user whose own modules are called like rooms of ours, and beside them files called like installed packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.waiting import LIMIT_S

FILES = {
    "coppice_utils.py": "WIDTH = 6\n",
    "methods.py": "from coppice.methods.growth.random import Random\n\n\nclass Mine(Random):\n    pass\n",
    "scheduler.py": "from coppice.orchestrator.tasks.bundled import digits\n\n\ndef make(**given):\n    return digits(**given)\n",
    "slurm.py": (
        "import torch\nfrom coppice_utils import WIDTH\n\n\ndef build():\n    nn = torch.nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))\n"
    ),
    "orchestrator/__init__.py": "from coppice.orchestrator.trial.trial import Trial\n\n\nclass Body(Trial):\n    pass\n",
    "torch.py": "raise RuntimeError('torch.py was imported in the place of the installed package')\n",
    "yaml.py": "raise RuntimeError('yaml.py was imported in the place of the installed package')\n",
}


def write_user_folder(folder: Path, **changes: Any) -> Path:
    """Make the folder and its campaign file `a.yaml` of two trials, all of whose parts are the user's own."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    content = {
        "name": "a",
        "root": str(folder / "runs"),
        "body": "orchestrator:Body",
        "task": {"dataset": "scheduler:make", "network": "slurm:build"},
        "training": {"epochs": 2, "batch_size": 64},
        "adaptations": [{"grow": {"when": {"periodic": {"every": 1}}, "how": "methods:Mine", "amount": 0.5}}],
        "search": {"trials": 2, "sampler": "random"},
        **changes,
    }
    (folder / "a.yaml").write_text(json.dumps(content))  # which is YAML, too
    return folder


def coppice(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command there."""
    command = [sys.executable, "-m", "coppice", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=LIMIT_S)


def finished_and_widened(folder: Path) -> list[str]:
    """Ids of the trials of its campaign that finished and were widened, which only the user's method does."""
    wide = []
    for events in sorted(folder.glob("runs/a/trials/*/events.jsonl")):
        written = [json.loads(line) for line in events.read_text().splitlines()]
        if written[-1].get("status") == "finished" and any(e.get("accepted") for e in written):
            wide.append(events.parent.name)
    return wide
