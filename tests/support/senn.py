"""Small problems on which scores by natural gradients can be computed by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.method import Context
from coppice.testing.examples import context


def problem(module: nn.Module, *shape: int, loss=F.mse_loss, outputs: int = 3, samples: int = 60) -> Context:
    torch.manual_seed(2)
    for p in module.parameters():
        nn.init.normal_(p, 0, 0.5)
    inputs = torch.randn(samples, *shape, dtype=torch.float64)
    if loss is F.cross_entropy:
        return context(module.double(), inputs, torch.randint(outputs, (samples,)), loss=loss)
    targets = torch.stack([(inputs.flatten(1)[:, :2] * (i + 1)).sin().sum(1) for i in range(outputs)], 1)
    return context(module.double(), inputs, targets, loss=loss)
