"""Triggers that look at what the adaptation's own method measures after each epoch."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.scheduler.triggers.base import Progress, Trigger, setting


@dataclass(frozen=True)
class Score(Trigger):
    """Acts when a score of the method is above (or below) a threshold, absolute or relative to another signal.

    `score_best` is the largest score of any unit, `score_worst` the smallest, `score_sum` the largest sum of an element's scores,
    `signal_<name>` what the method reports itself. With `relative_to` the threshold is multiplied by that signal, and `least` is
    an absolute one beside it: SENN acts when delta eta / eta > 0.03 and delta eta > 2.5e-3 (`signal: signal_gain`, `threshold:
    0.03`, `relative_to: signal_eta`, `least: 2.5e-3`). For GradMax, whose scores are squared gradient norms, the threshold says
    how large the largest singular value must be.

    Does not act after an epoch in which the method offered nothing, or statistics were not finite.
    """

    why = "the network changes when it is worth it, and as often as that"
    paper = "Mitchell et al. 2023, SENN (arXiv 2307.04526); Evci et al. 2022, GradMax; Wu et al. 2020, Firefly"
    wants = ("scores",)

    signal: str = setting("score_best", "score_best, score_worst, score_sum or signal_<name>")
    threshold: float = setting(0.0, "the signal must be beyond this")
    mode: str = setting("above", "on which side of the threshold it acts", choices=("above", "below"))
    relative_to: str | None = setting(None, "signal by which the threshold is multiplied")
    least: float | None = setting(None, "the signal must be above this, too")

    def decides(self, progress: Progress) -> bool:
        """Whether the signal is beyond its threshold."""
        value = self._value(progress, self.signal)
        scale = 1.0 if self.relative_to is None else self._value(progress, self.relative_to)
        if value is None or scale is None or (self.least is not None and not value > self.least):
            return False
        bound = self.threshold * scale
        return value > bound if self.mode == "above" else value < bound

    def _value(self, progress: Progress, name: str) -> float | None:
        """The signal; None where the method offered nothing."""
        now = progress.signals[-1] if progress.signals else {}
        if name.startswith("score_") and name not in now and now.get("offered") == 0:
            return None
        return progress.signal("score", name)


@dataclass(frozen=True)
class SplittingScore(Score):
    """Acts when there is a neuron whose splitting lowers the loss: its splitting matrix has an eigenvalue below 0.

    The scores of splitting methods are predicted decreases of the loss, in proportion to -lambda_min; `threshold` is the smallest
    that is worth it. Where no split helps, the network is
    at a minimum that splitting cannot leave, and another method must grow it.
    """

    why = "splitting helps only where the splitting matrix has a negative eigenvalue; gradient descent does the rest"
    paper = "Wu, Wang and Liu 2019, splitting steepest descent (arXiv 1910.02366)"

    threshold: float = setting(0.0, "the best predicted decrease must be above this", low=0.0)


@dataclass(frozen=True)
class Advised(Trigger):
    """Acts when the method itself wants to: when it advises to change at least `least` units, of all elements together."""

    why = "gradient descent decides when a neuron appears or vanishes"
    paper = "Radhakrishnan et al. 2025 (arXiv 2501.18012): the network's size is one of its weights"
    wants = ("scores",)
    needs_advice = True

    least: int = setting(1, "units that must be advised", low=1, high=10**6)

    def decides(self, progress: Progress) -> bool:
        """Whether enough is advised."""
        advised = progress.signal("learned", "advised")
        return advised is not None and advised >= self.least


@dataclass(frozen=True)
class Rank(Trigger):
    """Acts when the effective rank of the hidden activations is above `gamma` times what it was.

    The effective rank of a layer is the share of singular values of its activations above a threshold, divided by its width. As
    long as it falls, neurons become redundant; while it stays high, the layer uses all it has and more neurons can add something.
    `reference` is the rank at the first measurement (the paper's choice for fully connected networks; there it is taken before
    training, here after the first epoch) or the largest so far (its choice for convolutional ones).
    """

    why = "a layer grows while its neurons are all of use, and not when they have become redundant"
    paper = "Maile et al. 2022, NORTH* (arXiv 2202.08539)"
    wants = ("effective_rank",)
    remembers = True

    gamma: float = setting(0.97, "share of the reference; the paper tries 0.9, 0.97, 0.99", low=0.0, high=2.0)
    signal: str = setting(
        "rank_best", "the largest rank of any element, or the mean of all", choices=("rank_best", "rank_mean"))
    reference: str = setting("first", "what it is compared with", choices=("first", "largest"))

    def decides(self, progress: Progress) -> bool:
        """Whether the rank is high."""
        now = progress.signal("rank", self.signal)
        known = [progress.signal("rank", self.signal, at) for at in range(len(progress.signals))]
        ranks = [value for value in known if value is not None]
        if now is None:
            return False
        return now > self.gamma * (ranks[0] if self.reference == "first" else max(ranks))
