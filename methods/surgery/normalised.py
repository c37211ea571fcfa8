"""Which weights see the output of a LayerNorm and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coppice.methods.network import Network
from coppice.methods.surgery.compensate import is_norm


@torch.no_grad()
def normalised_consumers(network: Network, names: Collection[str]) -> frozenset[str]:
    """Those of the weights `names` whose module is, in every call of one forward, given a LayerNorm's output (or a view of it).

    The network runs once on its example inputs, in eval mode; modes and the random number generator are put back.
    """
    storages: dict[int, Tensor] = {}
    verdicts: dict[str, bool] = {}

    def normalises(module: nn.Module, args: Any, output: Any) -> None:
        storages[output.untyped_storage().data_ptr()] = output

    modes = [(m, m.training) for m in network.module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for module in network.module.modules():
            if is_norm(module, nn.LayerNorm):
                stack.callback(module.register_forward_hook(normalises).remove)
        for owner in {n.rpartition(".")[0] for n in names}:
            module = network.module.get_submodule(owner)
            stack.callback(module.register_forward_pre_hook(_watch(owner, storages, verdicts), with_kwargs=True).remove)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.backends.mha.set_fastpath_enabled(False)
        network.module.eval()
        try:
            network.module(*network.example_inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, training in modes:
                module.training = training
    return frozenset(n for n in names if verdicts.get(n.rpartition(".")[0], False))


def _watch(owner: str, storages: dict[int, Tensor], verdicts: dict[str, bool]) -> Any:
    def watch(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.is_floating_point()]
        seen = bool(given) and all(t.untyped_storage().data_ptr() in storages for t in given)
        verdicts[owner] = seen and verdicts.get(owner, True)

    return watch
