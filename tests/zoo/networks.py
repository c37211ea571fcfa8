"""Every network of the zoo by name. `build` is the factory that a record names."""

from collections.abc import Callable

import torch
from torch import nn

from coppice.methods.network import Network
from tests.zoo import language, plain, vision

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple]]] = {
    **language.NETWORKS, **vision.NETWORKS, **plain.NETWORKS,
}
FAMILIES = {"transformers": language.NETWORKS, "vision": vision.NETWORKS, "PyTorch": plain.NETWORKS}


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name][0]().eval()


def network(name: str) -> Network:
    return Network(build(name), "tests.zoo.networks:build", {"name": name}, NETWORKS[name][1]())
