import json
from dataclasses import asdict

import pytest
import torch

from coppice.methods.network import Network
from coppice.methods.surgery.shrink import Shrinking, advance
from tests.support.zoo import image, resnet


def test_units_go_to_zero_linearly_and_others_stay():
    torch.manual_seed(0)
    network = Network(resnet(), "tests.support.zoo:resnet", {}, image())
    conv, norm, after = (network.module.get_submodule(f"layers.0.{n}") for n in ("conv1", "bn1", "conv2"))
    old, columns = conv.weight.detach().clone(), after.weight.detach().clone()
    shrinking = Shrinking("layers.0.conv1.weight:0", (1, 5), 4)
    for left in (3, 2, 1, 0):
        shrinking = advance(network, shrinking)
        torch.testing.assert_close(conv.weight[[1, 5]], old[[1, 5]] * left / 4)
        torch.testing.assert_close(norm.weight, torch.tensor([left / 4 if i in (1, 5) else 1.0 for i in range(8)]))
    kept = [0, 2, 3, 4, 6, 7]
    assert shrinking.done == shrinking.steps and torch.equal(conv.weight[kept], old[kept]) and torch.equal(after.weight, columns)
    assert Shrinking(**{**json.loads(json.dumps(asdict(shrinking))), "units": (1, 5)}) == shrinking


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps=0"):
        Shrinking("a", (1,), 0)
