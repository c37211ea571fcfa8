"""How a module is called: which tensor is its input, what it returns, and who reads its attributes besides itself.

The input of a call is its first tensor, among the positional arguments and then among those by keyword. Its output is the tensor
it returns, or the first entry of the tuple, list or dictionary (a dataclass of `transformers` is one) that it returns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

Form = dict[str, Any]
"""What a module returns besides its output: `kind` (`tuple` or `list`) and `rest`, for each further entry `{"value": v}`, a plain
value, or `{"argument": key}`, an argument that is passed on, by position (int) or keyword (str)."""
_FREE = frozenset(("training", "forward", "train", "eval"))


def place_of_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | str | None:
    """Position or keyword of the first tensor of a call; None without one."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return next((place for place, value in places if isinstance(value, Tensor)), None)


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int | str) -> Any:
    """The argument at a position or of a keyword; None where the call has none there."""
    if isinstance(place, str):
        return kwargs.get(place)
    return args[place] if place < len(args) else None


def with_input(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int | str, value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with another input."""
    if isinstance(place, str):
        return args, {**kwargs, place: value}
    return (*args[:place], value, *args[place + 1 :]), dict(kwargs)


def output_of(returned: Any) -> Tensor | None:
    """The output in what a module returned; None where no tensor comes first."""
    if isinstance(returned, Mapping):
        returned = tuple(returned.values())
    first = returned[0] if isinstance(returned, (tuple, list)) and returned else returned
    return first if isinstance(first, Tensor) else None


def with_output(returned: Any, value: Tensor) -> Any:
    """The same as `returned` with another output, of the same type."""
    if isinstance(returned, Mapping):
        changed, kind = {**returned, next(iter(returned)): value}, cast(Any, type(returned))
        return kind(**changed) if hasattr(returned, "__dataclass_fields__") else kind(changed)
    if isinstance(returned, tuple):
        rest = (value, *returned[1:])
        return type(returned)(*rest) if hasattr(returned, "_fields") else type(returned)(rest)
    return [value, *returned[1:]] if isinstance(returned, list) else value


def ends_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], returned: Any) -> tuple[Tensor, Tensor]:
    """Input and output of a call.

    Raises:
        TypeError: it has no input, or no output.
    """
    place, output = place_of_input(args, kwargs), output_of(returned)
    if place is None or output is None:
        raise TypeError(f"a module must be given a tensor and return one first, but it returned {type(returned).__name__}.")
    return argument(args, kwargs, place), output


def carried(module: nn.Module) -> dict[str, Any]:
    """The flags and words of a module: attributes that do not change with its size, which its parent may go on reading."""
    table = module.__dict__
    return {k: v for k, v in table.items() if isinstance(v, (bool, str)) and not k.startswith("_") and k != "training"}


def read_in_vain(module: nn.Module, read: set[str]) -> list[str]:
    """The attributes, of those that others read, which nothing in the module's place would have."""
    return sorted(read - _FREE - carried(module).keys())


@contextmanager
def watch_reads(modules: Mapping[int, Any], reads: dict[int, set[str]]) -> Iterator[None]:
    """Note, for each of `modules` (by id), the attributes that are read while it is not called, by functions not its own.

    Args:
        modules: by id.
        reads: filled; by the same ids.
    """
    running: list[int] = []

    def read(self: nn.Module, name: str) -> Any:
        if name[0] != "_" and id(self) in modules and id(self) not in running and not _is_of(sys._getframe(1), self):
            reads.setdefault(id(self), set()).add(name)
        return object.__getattribute__(self, name)

    def ended(called: nn.Module, args: Any, returned: Any) -> None:
        if id(called) in running:
            del running[running.index(id(called)) :]

    started = register_module_forward_pre_hook(lambda called, args: running.append(id(called)))
    stopped = register_module_forward_hook(ended)
    nn.Module.__getattribute__ = read  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del nn.Module.__getattribute__
        started.remove()
        stopped.remove()


def _is_of(frame: FrameType, module: nn.Module) -> bool:
    """Whether a function that runs is a method of the module."""
    names = frame.f_code.co_varnames
    return bool(names) and frame.f_locals.get(names[0]) is module
