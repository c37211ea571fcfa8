"""What may end a trial beside its own errors; without PyTorch, so that whoever starts trials can tell these ends apart."""

from __future__ import annotations


class RanksLost(BaseException):
    """Another rank is gone without a word (its node failed, it was killed). Not an Exception: nothing is wrong with the trial."""


class NonFiniteLoss(RuntimeError):
    """The training loss became NaN or infinite."""
