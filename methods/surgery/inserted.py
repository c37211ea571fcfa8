"""The modules that surgery puts into a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph.calls import Form, argument, carried, output_of, place_of_input, with_input, with_output


class PassThrough(nn.Module):
    """Stands where a module was taken out: takes what that was given and returns its input, in the form that it returned.

    Args:
        form: what the module returned besides its output (see `coppice.methods.graph.calls`); None for nothing.
        old: the module; its flags and words (attributes that are bool or str), which its parent may read, are kept.
    """

    def __init__(self, form: Form | None = None, old: nn.Module | None = None) -> None:
        super().__init__()
        self.form = form
        if old is not None:
            self.__dict__.update(carried(old))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first tensor among the arguments; where the module returned more, that too."""
        place = place_of_input(args, kwargs)
        if place is None:
            raise TypeError("what stands in a removed module's place must be given a tensor, but got none.")
        output = self.output(argument(args, kwargs, place))
        if self.form is None:
            return output
        rest = [argument(args, kwargs, r["argument"]) if "argument" in r else r["value"] for r in self.form["rest"]]
        return [output, *rest] if self.form["kind"] == "list" else (output, *rest)

    def output(self, input: Tensor) -> Tensor:
        """What comes out for an input."""
        return input


class Zero(PassThrough):
    """Stands where a branch beside a skip path was taken out: as `PassThrough`, with zeros like the input."""

    def output(self, input: Tensor) -> Tensor:
        """Zeros of the same shape."""
        return torch.zeros_like(input)


class Residual(nn.Module):
    """`x + last(relu(norm(first(x))))`, with `last` zero at first, so that it starts as the identity.

    Args:
        first: makes the inner channels.
        norm: of the inner channels, or None.
        last: maps them back; its weight and bias are set to zero.
    """

    def __init__(self, first: nn.Module, norm: nn.Module | None, last: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.norm = norm if norm is not None else nn.Identity()
        self.last = last
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x + self.last(torch.relu(self.norm(self.first(x))))


class RunAfter:
    """Forward hook that runs the child called `name` on the module's output, and returns the rest as the module did.

    It holds nothing but a name, so it survives deep copies and functional calls: the child is looked up in the module it is
    called for.

    Args:
        name: of the child.
        whole: the child is a copy of the module, so it gets the module's other arguments too.
    """

    def __init__(self, name: str, whole: bool = False) -> None:
        self.name = name
        self.whole = whole

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> Any:
        """What `module` returned, with the output of the child when it runs on its output."""
        child, output = module._modules[self.name], output_of(returned)
        assert child is not None and output is not None
        place = place_of_input(args, kwargs)
        if self.whole and place is not None:
            args, kwargs = with_input(args, kwargs, place, output)
        else:
            args, kwargs = (output,), {}
        made = output_of(child(*args, **kwargs))
        assert made is not None
        return with_output(returned, made)


def put_behind(holder: nn.Module, name: str, made: nn.Module, whole: bool = False) -> None:
    """Make `made` the child `name` of `holder`, run on its own output.

    It comes before what was put there earlier, but last behind what stands in a removed module's place, as in a sequence.

    Args:
        holder: the module it goes behind.
        name: of the new child.
        made: what is put there.
        whole: see `RunAfter`.
    """
    holder.add_module(name, made)
    if type(holder).forward is not nn.Sequential.forward:
        holder.register_forward_hook(RunAfter(name, whole), prepend=not isinstance(holder, PassThrough), with_kwargs=True)


def put_behind_names(holder: nn.Module) -> list[str]:
    """The children that hooks run on the module's output, in order."""
    return [hook.name for hook in holder._forward_hooks.values() if isinstance(hook, RunAfter)]


def take_away_behind(holder: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """Undo `put_behind` wherever a hook does the running; returns the name of each child, the child, and whether it is a copy."""
    hooks = {key: hook for key, hook in holder._forward_hooks.items() if isinstance(hook, RunAfter)}
    for key in hooks:
        del holder._forward_hooks[key]
    children = [(hook.name, holder._modules.pop(hook.name), hook.whole) for hook in hooks.values()]
    return [(name, child, whole) for name, child, whole in children if child is not None]
