"""Whether the optimizers that follow a network train all that was trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.followers import OptimizerFollower


@dataclass(frozen=True)
class Coverage:
    """What the optimizers that follow held before a change.

    Attributes:
        inside: the network's parameters in their groups.
        untrained: the network's parameters that require gradients and are in no group.
    """

    inside: dict[int, str]
    untrained: frozenset[int]

    @staticmethod
    def before(module: nn.Module, followers: Iterable[Follower]) -> Coverage:
        """Look at the optimizers before a change; they may hold parameters beside the network's.

        Raises:
            RuntimeError: an optimizer trains nothing of the network, a parameter is in two groups, or one was replaced after the
                optimizer was made.
        """
        live = {id(p): n for n, p in module.named_parameters()}
        held = _held(followers)
        for optimizer in (f.optimizer for f in followers if isinstance(f, OptimizerFollower)):
            if not any(id(p) in live for group in optimizer.param_groups for p in group["params"]):
                raise RuntimeError(
                    f"an optimizer that follows must train parameters of the network, but {type(optimizer).__name__} holds none "
                    "of them: make it of this module's parameters (not of copies of them, in another precision, say)."
                )
        _once(live, held)
        inside = {id(p): live[id(p)] for p in held if id(p) in live}
        untrained = [p for p in module.parameters() if p.requires_grad and id(p) not in inside] if held else []
        _not_replaced(live, untrained, held, followers)
        return Coverage(inside, frozenset(id(p) for p in untrained))

    def notes(self, module: nn.Module) -> list[str]:
        """What the event says of parameters that are trained by none of the optimizers that follow."""
        names = [n for n, p in module.named_parameters() if id(p) in self.untrained]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return [f"{', '.join(names[:3])}{more}: in no optimizer that follows, before as after"] if names else []

    def check(self, module: nn.Module, followers: Iterable[Follower]) -> None:
        """After the change every parameter that requires gradients is in one group, or was in none before.

        Raises:
            RuntimeError: some parameter would silently not be trained, one would be trained twice, or a dead one would be.
        """
        live = {id(p): n for n, p in module.named_parameters()}
        held = _held(followers)
        if not held:
            return
        _once(live, held)
        ids = {id(p) for p in held}
        trained = {id(p): n for n, p in module.named_parameters() if p.requires_grad}
        missing = sorted(n for i, n in trained.items() if i not in ids and i not in self.untrained)
        dead = sorted(n for i, n in self.inside.items() if i in ids and i not in live)
        if missing or dead:
            raise RuntimeError(
                f"the optimizers must go on training the network's parameters, but {missing or 'none'} are not trained any more "
                f"and {dead or 'none'} are no longer in the network; pass an OptimizerFollower of every optimizer to apply()."
            )


def _held(followers: Iterable[Follower]) -> list[Tensor]:
    return [p for f in followers if isinstance(f, OptimizerFollower) for g in f.optimizer.param_groups for p in g["params"]]


def _not_replaced(
    live: dict[int, str], untrained: Iterable[Tensor], held: Iterable[Tensor], followers: Iterable[Follower]
) -> None:
    """Untrained parameters must be such as were never trained."""
    beside = {tuple(p.shape) for p in held if id(p) not in live and p.requires_grad}
    optimizers = [f.optimizer for f in followers if isinstance(f, OptimizerFollower)]
    stated = {id(p) for optimizer in optimizers for p in optimizer.state if isinstance(p, Tensor)}
    lost = sorted(live[id(p)] for p in untrained if tuple(p.shape) in beside or id(p) in stated)
    if lost:
        raise RuntimeError(
            f"the optimizer must train the network's own parameters, but {lost} are in none of its groups, but it has state for "
            "them or trains tensors of the same shapes outside of the network: they were taken out, replaced or copied after the "
            "optimizer was made; make the optimizer again."
        )


def _once(live: dict[int, str], held: Iterable[Tensor]) -> None:
    twice = sorted(live[i] for i, count in Counter(map(id, held)).items() if count > 1 and i in live)
    if twice:
        raise RuntimeError(
            f"each parameter must be in one group of one optimizer that follows, but {twice} are in several; pass followers of "
            "optimizers that share no parameter."
        )
