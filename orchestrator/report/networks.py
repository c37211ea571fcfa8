"""The network that a campaign, a trial, a checkpoint or an exported folder holds, ready to run or to train on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from coppice.methods.network import Network
from coppice.methods.record.architecture import rebuild
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.layout import CHECKPOINTS, CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.report.checksums import check_sums
from coppice.orchestrator.report.export import evaluated_tensors
from coppice.orchestrator.report.results import best_trial
from coppice.orchestrator.report.trust import trusted_by_campaign_of


def load_network(
    folder: Path | str, *, example_inputs: tuple[Any, ...] = (), device: torch.device | str = "cpu", trust: Collection[str] = ()
) -> Network:
    """The network that `folder` holds.

    What is in the folder names the function that builds the network. One of ours is called, and in a campaign of yours, which is
    one whose files you own, the one that its file names; for any other say whom you trust.

    Args:
        folder: what `coppice best` has written, a checkpoint, a trial (its newest valid checkpoint counts), or a campaign (its
            best trial counts).
        example_inputs: for the network; its elements are found by running it on them.
        device: where the network will live.
        trust: packages whose functions may be called to build it, such as `["mynets"]`.

    Returns:
        The network as it was evaluated: where the trial kept a moving average, that is what its tensors are. It is in the mode
        in which its factory leaves it.

    Raises:
        FileNotFoundError: the folder holds none of these.
        Untrusted: the network is built by code that is neither ours nor trusted; nothing of it was run.
        CheckpointError: no checkpoint in it is valid.
        ArchitectureError: the code of the network is not what it was, or the files do not fit each other.
        ValueError: what `coppice best` has written is damaged; the message names the file.

    Warns:
        UserWarning: a newer checkpoint of the trial is damaged, so that the network is an older one.
    """
    path = Path(folder)
    if CampaignFolder(path).trials_path.is_dir():
        path = _best(path)
    trust = [*trust, *trusted_by_campaign_of(path)]
    if (path / CHECKPOINTS).is_dir() and (latest := checkpoints.latest(path / CHECKPOINTS)):
        for problem in latest[2]:
            warnings.warn(f"the network is that of the checkpoint {latest[0]}, because: {problem}", stacklevel=2)
        architecture, tensors = latest[1].architecture, evaluated_tensors(latest[1].tensors)
    elif (path / checkpoints.MANIFEST).exists():
        saved = checkpoints.read(path)
        architecture, tensors = saved.architecture, evaluated_tensors(saved.tensors)
    elif (path / checkpoints.MODEL).exists() or (path / checkpoints.ARCHITECTURE).exists():
        check_sums(path, (checkpoints.ARCHITECTURE, checkpoints.MODEL))
        record = json.loads((path / checkpoints.ARCHITECTURE).read_bytes())
        return rebuild(record, path / checkpoints.MODEL, example_inputs=example_inputs, device=device, trust=trust)
    else:
        raise FileNotFoundError(
            f"{folder} must hold a network (what `coppice best` writes, a checkpoint, a trial or a campaign), but there is none."
        )
    return rebuild(architecture, tensors, example_inputs=example_inputs, device=device, trust=trust)


def _best(campaign: Path) -> Path:
    folder = CampaignFolder(campaign)
    search = load_spec(folder).search
    best = best_trial(campaign, search.metric, search.mode)
    if best is None:
        raise FileNotFoundError(f"{campaign} must have a trial that has reported {search.metric}, but has none yet.")
    return folder.trial(best.id).path
