"""A campaign's folder with everything that may be in one, what may happen to its files, and what its readers make of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.cli.best import export_best
from coppice.orchestrator.cli.output import explained
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.history import read_history
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.status import status
from coppice.orchestrator.placement.runner import Runner
from coppice.orchestrator.report import write_report
from coppice.orchestrator.report.networks import load_network
from coppice.orchestrator.report.results import write_results
from tests.support.folders import create

SPEC: dict[str, Any] = {
    "task": {"dataset": "digits", "network": "mlp", "network_args": {"hidden": [6, 6]}},
    "training": {"epochs": 4, "batch_size": 256, "device": "cpu", "optimizer": {"adamw": {"lr": {"loguniform": [0.001, 0.01]}}}},
    "adaptations": [{"grow": {"when": {"periodic": {"every": 1}}, "how": "random", "amount": 0.25, "limit": {"width": 4}}}],
    "search": {"sampler": "random", "trials": 3}, "seed": 5,
}
HALF = ("t0001", 2)
"""Where the campaign stands: a trial and its epochs; the one before has finished."""


def go_on(path: Path, stop: tuple[str, int] | None = None) -> str:
    """What a resumed driver and its workers do, without Ray, one trial after the other; `stop` leaves it there. What is told."""
    folder = CampaignFolder(path)
    spec = load_spec(folder)
    ledger = TrialRecords(folder)
    told = ledger.restore(under_way=True)
    ledger.interrupt()
    entries = ledger.entries()
    sampler = Sampler(spec)
    sampler.restore(entries)
    waiting = [e.id for e in entries if not e.ended]
    number = 1 + max((e.number for e in entries if e.number is not None), default=-1)
    while waiting or number < spec.search.trials:
        if not waiting:
            sample = sampler.ask(number)
            assert sample is not None
            trial = TrialSpec.model_validate({**sample.tree, "seed": spec.seed + number})
            ledger.add(f"t{number:04d}", trial.model_dump(mode="json"), number, sample)
            waiting.append(f"t{number:04d}")
            number += 1
        told.append(_train(folder, spec, waiting.pop(0), stop))
        if stop and told[-1] == "left":
            break
    return "\n".join(told)


def _train(folder: CampaignFolder, spec: Campaign, name: str, stop: tuple[str, int] | None) -> str:
    runner = Runner({"folder": str(folder.trial(name).path), "body": spec.body, "metrics": ["val_accuracy"], "mode": "max"})
    try:
        for epoch in range(1, 100):
            result = runner.step()
            if result["done"]:
                return str(result["failed"])
            if stop == (name, epoch):
                runner.save()
                return "left"
    finally:
        runner.end()
    return ""


def campaign(root: Path) -> Path:
    """One trial has finished, one has not, one has not begun; with what jobs, reports and exports leave."""
    torch.set_num_threads(1)
    folder = CampaignFolder(root / "c")
    create(folder, Campaign.model_validate({**SPEC, "name": "c", "root": root}))
    go_on(folder.path, HALF)
    write_json(folder.trial("t0001").path / attempts.NAME, {"token": [7, 0]})
    write_json(folder.trial("t0001").request, {"memory": 2000})
    write_json(folder.trial("t0001").meeting, {"token": "a", "address": "127.0.0.1:1"})
    folder.jobs.mkdir()
    write_json(folder.drivers, {"epochs": 6, "idle": 0, "time": 1.0})
    write_results(folder.path)
    export_best(folder.path)
    write_report(folder.path)
    return folder.path


def _flip(path: Path) -> None:
    """Another bit: of the digit in the middle, where there is one, so that what is read is still a number."""
    content = bytearray(path.read_bytes())
    digits = [i for i, c in enumerate(content) if chr(c).isdigit()] if path.suffix in (".json", ".jsonl", ".yaml") else []
    place = digits[len(digits) // 2] if digits else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "one bit": _flip,
    "emptied": lambda p: p.write_bytes(b""),
    "deleted": lambda p: p.unlink(),
}


def _done(folder: Path) -> list[list[str]]:
    """What the trials have done: metrics but for time, and changes of the network."""
    kept = ("epoch", "val_accuracy", "val_loss", "parameters", "widths", "element", "size_after", "kind")
    found = []
    for trial in CampaignFolder(folder).trials():
        events = [e for e in read_history(trial.path).events if e["type"] in ("metrics", "structural")]
        found.append([json.dumps({k: e.get(k) for k in kept}) for e in events])
    return found


def _status(folder: Path) -> tuple[Any, str]:
    found = status(folder)
    shown = [(s.id, s.state, s.epoch, s.metrics.get("val_accuracy"), s.best, s.parameters, s.num_structural) for s in found]
    return shown, " ".join(s.damage for s in found) + " ".join(TrialRecords(CampaignFolder(folder)).remarks())


def _report(folder: Path) -> tuple[Any, str]:
    text = write_report(folder).read_text()
    told = re.search(r"<h3>The folder</h3>.*?</ul>", text)
    return (text.replace(told[0], "") if told else text), told[0] if told else ""


def _best(folder: Path) -> tuple[Any, str]:
    with tempfile.TemporaryDirectory() as out:  # others may not write beside the folder
        exported = export_best(folder, Path(out, "out"))
        tensors = {k: v.sum().item() for k, v in load_network(exported.folder).module.state_dict().items()}
    return (exported.trial, exported.summary, tensors), " ".join(exported.damaged)


def _copied(folder: Path) -> tuple[Any, str]:
    """What loads the network that was copied out before."""
    return {k: v.sum().item() for k, v in load_network(folder / "best").module.state_dict().items()}, ""


def _resume(folder: Path) -> tuple[Any, str]:
    told = go_on(folder)
    return _done(folder), told


READERS: dict[str, Callable[[Path], tuple[Any, str]]] = {
    "status": _status, "report": _report, "best": _best, "copied": _copied, "resume": _resume,
}


def reading(reader: str, folder: Path) -> tuple[Any, str]:
    """What a reader makes of the folder, None where it refuses; and what it tells.

    Raises:
        Exception: what the command would end in a traceback with.
    """
    said = io.StringIO()
    with contextlib.redirect_stderr(said), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, told = READERS[reader](folder)
        except Exception as error:
            message = explained(error)
            if message is None:
                raise
            return None, message
    return result, " ".join([told, said.getvalue(), *(str(w.message) for w in caught)])


def fresh(whole: Path, work: Path) -> Path:
    """A copy of the whole folder in a place that is the same each time."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(whole.parent, work)
    return work / whole.name
