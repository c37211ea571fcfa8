"""Checkpoint: bytes against the tensors' own bytes, and time against writing those bytes raw with fsync.

Goals: at most 1.02x the bytes; at most 1.5x the time (median of alternating runs).
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from coppice.methods.network import Network
from coppice.methods.networks.resnet import resnet
from coppice.orchestrator.config.models import TrainingSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.losses import loss_for
from coppice.orchestrator.trial.checkpointing import Staging, snapshot
from coppice.orchestrator.trial.trainer import Trainer

ROUNDS = 9


def resnet_trainer() -> Trainer:
    arguments = {"num_classes": 10, "in_channels": 1, "depth": 18}
    data = load_dataset("digits", None, limit_train=64)
    examples = (torch.zeros(2, *data.input_shape),)
    network = Network(resnet(**arguments), "coppice.methods.networks.resnet:resnet", arguments, examples)
    spec = TrainingSpec.model_validate({"epochs": 1, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.01, "momentum": 0.9}}})
    trained = Trainer(network, data, loss_for(data, None), spec, 0)
    trained.train_epoch(1, [], lambda: None)
    return trained


def raw(path: Path, chunks: list[bytes]) -> None:
    for i, chunk in enumerate(chunks):
        with open(path / f"{i}.bin", "wb") as file:
            file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def main() -> None:
    trainer = resnet_trainer()
    staging = Staging()
    content = snapshot(trainer, {"epoch": 1, "history": []}, {}, Staging())
    tensors = [*content.tensors.values(), *content.optimizer.values()]
    num_bytes = sum(t.numel() * t.element_size() for t in tensors)
    chunks = [b"".join(t.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for t in part.values() if t.numel())
              for part in (content.tensors, content.optimizer)]
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        for i in range(ROUNDS):
            began = time.perf_counter()
            path = checkpoints.write(folder / "ours", i, snapshot(trainer, {"epoch": 1, "history": []}, {}, staging))
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            raw(folder, chunks)
            theirs.append(time.perf_counter() - began)
            size = sum(f.stat().st_size for f in path.iterdir())
            checkpoints.keep_newest(folder / "ours", 1)
    print(f"tensors {num_bytes / 1e6:.1f} MB, checkpoint {size / 1e6:.1f} MB: {size / num_bytes:.4f}x (goal <= 1.02x)")
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"save {a * 1e3:.0f} ms, raw write with fsync {b * 1e3:.0f} ms: {a / b:.2f}x (goal <= 1.5x)")


if __name__ == "__main__":
    main()
