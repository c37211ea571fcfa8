"""Small networks learn the bundled tasks through the batches, losses and metrics: the parts fit together."""

from typing import Any

import pytest
import torch

from coppice.methods.networks.catalog import arguments_for
from coppice.methods.networks.mlp import mlp
from coppice.methods.networks.resnet import resnet
from coppice.orchestrator.tasks.batches import train_batches
from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.losses import loss_for
from coppice.orchestrator.tasks.metrics import evaluate


@pytest.mark.parametrize(
    ("dataset", "arguments", "network", "given", "epochs", "metric", "least"),
    [
        ("digits", {"pad": 1}, resnet, {"depth": 8, "width": 0.5}, 8, "accuracy", 0.9),
        ("wine", {}, mlp, {}, 20, "accuracy", 0.9),
        ("breast_cancer", {}, mlp, {"hidden": [16]}, 10, "accuracy", 0.9),
        ("spirals", {}, mlp, {"activation": "tanh"}, 60, "accuracy", 0.95),
        ("diabetes", {}, mlp, {"hidden": [8]}, 20, "r2", 0.3),
        ("bessel", {}, mlp, {"activation": "tanh"}, 60, "r2", 0.9),
        ("teacher", {}, mlp, {}, 60, "r2", 0.9),
        ("photo", {"size": 32}, mlp, {}, 20, "r2", 0.5),
    ],
)
def test_learns(dataset: str, arguments: Any, network: Any, given: Any, epochs: int, metric: str, least: float) -> None:
    torch.manual_seed(0)
    data = load_dataset(dataset, **arguments)
    name = f"{network.__module__}:{network.__name__}"
    module = network(**arguments_for(name, data.input_shape, data.num_outputs, given))
    loss, optimizer = loss_for(data), torch.optim.Adam(module.parameters(), 0.01)
    before = evaluate(module, data, "test", loss)[metric]
    for epoch in range(epochs):
        for inputs, targets in train_batches(data, 64, 0, epoch):
            optimizer.zero_grad()
            loss(module(inputs), targets).backward()
            optimizer.step()
    assert before < least < evaluate(module, data, "test", loss)[metric]
