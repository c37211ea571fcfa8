"""The dispatch mode that hands every operator of a forward to its rule: the one place where notes and rules meet."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from coppice.methods.graph.rules import handler
from coppice.methods.graph.watch import Watch


class Dispatch(TorchDispatchMode):
    """While it is entered, each operator runs by its rule, which labels what the operator returns.

    Args:
        watch: where the rules take their notes.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        watch.redispatch = lambda: self

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No guard against compilation around each operator: nothing is compiled while a mode is active."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Hand the operator to its rule."""
        return handler(func)(self.watch, func, args, kwargs or {})
