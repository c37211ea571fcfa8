"""The code in the README runs."""

import re
from pathlib import Path

import torch
from torch import nn

from coppice.methods.networks.resnet import resnet
from coppice.orchestrator.planning.load import check


def test_the_python_block_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    model = resnet(num_classes=10, in_channels=3, depth=8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    images = torch.randn(4, 3, 32, 32)
    code = code.replace("mypackage.nets:build", "coppice.methods.networks.resnet:resnet")
    before = sum(p.numel() for p in model.parameters())
    scope = {"torch": torch, "nn": nn, "model": model, "optimizer": optimizer, "images": images}
    exec(compile(code, "README.md", "exec"), scope)
    event = scope["event"]
    assert event.function_change <= 1e-5 * event.function_scale
    assert sum(p.numel() for p in model.parameters()) > before


def test_the_campaign_file_is_fine() -> None:
    (campaign,) = re.findall(r"```yaml\n(.*?)```", Path("README.md").read_text(), re.S)
    assert check(campaign) == []
