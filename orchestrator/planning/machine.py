"""Whether a trial fits onto this machine, where campaigns run on it."""

from __future__ import annotations

import os

import torch

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.config.space import Space
from coppice.orchestrator.placement.ray_bundles import resources_of
from coppice.orchestrator.planning.problems import Faults


def check_machine(spec: Campaign) -> Faults:
    """Cores and GPUs of a trial, against those that this process may use or that the placement says there are."""
    if not isinstance(spec.placement, LocalPlacement):
        return
    cores = len(os.sched_getaffinity(0)) if spec.placement.cpus is None else spec.placement.cpus
    gpus = torch.cuda.device_count() if spec.placement.gpus is None else spec.placement.gpus
    whose = "this machine" if spec.placement.cpus is None else "placement.local"
    wanted = resources_of(spec.resources)
    if wanted.get("GPU", 0) <= gpus and wanted["CPU"] > cores:
        place = ("resources", "cpus_per_gpu" if spec.resources.gpus else "cpus")
        yield place if spec.placement.cpus is None else ("placement", "local", "cpus"), (
            f"must fit onto the {cores} cores of {whose}, but a trial gets {wanted['CPU']:g}; "
            "lower it, or choose another placement")
    if wanted.get("GPU", 0) > gpus:
        yield ("resources", "gpus"), (
            f"must be at most {gpus}, but is {spec.resources.gpus}; lower it, or choose another placement\n"
            f"    (PyTorch sees {gpus} GPUs on this machine)")
    if not torch.cuda.is_available() and any(
        isinstance(tree, dict) and tree.get("device") == "cuda" for tree, _ in Space(spec.training).variants()
    ):
        yield ("training", "device"), "must be auto or cpu where PyTorch sees no GPU, as on this machine, but is 'cuda'"
