"""Every random stream of a trial is derived from its seed and a label, so nothing random must be saved to resume."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *labels: object) -> int:
    """A seed below 2**63 for the stream named by `labels`; the same in every process and on every machine."""
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *labels: object) -> torch.Generator:
    """A CPU generator for the stream named by `labels`."""
    return torch.Generator().manual_seed(derive(seed, *labels))
