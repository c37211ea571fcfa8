"""The data sets that have a name; yours are named as `package.module:attribute`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from coppice.orchestrator.tasks.dataset import Dataset
from coppice.orchestrator.tasks.splits import limited
from coppice.references import resolve

DATASETS = {
    "digits": "coppice.orchestrator.tasks.bundled:digits",
    "wine": "coppice.orchestrator.tasks.bundled:wine",
    "breast_cancer": "coppice.orchestrator.tasks.bundled:breast_cancer",
    "diabetes": "coppice.orchestrator.tasks.bundled:diabetes",
    "photo": "coppice.orchestrator.tasks.photo:photo",
    "bessel": "coppice.orchestrator.tasks.synthetic:bessel",
    "teacher": "coppice.orchestrator.tasks.synthetic:teacher",
    "spirals": "coppice.orchestrator.tasks.synthetic:spirals",
    "mnist": "coppice.orchestrator.tasks.idx:mnist",
    "fashion_mnist": "coppice.orchestrator.tasks.idx:fashion_mnist",
    "idx": "coppice.orchestrator.tasks.idx:idx",
    "cifar10": "coppice.orchestrator.tasks.cifar:cifar10",
    "image_parquet": "coppice.orchestrator.tasks.parquet:image_parquet",
    "tabular": "coppice.orchestrator.tasks.tabular:tabular",
}


def load_dataset(
    name: str,
    data_dir: Path | str | None = None,
    seed: int = 0,
    limit_train: int | None = None,
    limit_eval: int | None = None,
    **arguments: Any,
) -> Dataset:
    """Load a data set into the CPU's memory.

    Args:
        name: a key of `DATASETS`, or `package.module:attribute` of a callable that takes `data_dir`, `seed` and the arguments,
            and returns a `Dataset`.
        data_dir: folder with the files, for those that have any.
        seed: decides which samples are for validation, which are kept under a limit, and what synthetic data is drawn.
        limit_train: keep at most so many training samples, classes balanced.
        limit_eval: keep at most so many samples in each of the other splits, classes balanced.
        arguments: the data set's own.

    Raises:
        ValueError: unknown name, unknown or impossible arguments, or files with wrong content.
        FileNotFoundError: no data_dir, or missing files; the message names those looked for.
        TypeError: your callable returned something else than a `Dataset`.
    """
    loader = resolve("dataset", name, DATASETS)
    _check_arguments(name, loader, arguments)
    dataset = loader(data_dir=None if data_dir is None else Path(data_dir).expanduser(), seed=seed, **arguments)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset {name!r}: {loader} must return a Dataset, but returned a {type(dataset).__name__}.")
    return limited(dataset, seed, train=limit_train, evaluation=limit_eval)


def _check_arguments(name: str, loader: Any, arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(loader).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    known = [p for p in parameters if p not in {"data_dir", "seed"}] + ["limit_train", "limit_eval", "seed"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"dataset {name} takes the arguments {known}, but got {unknown}.")
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in {"data_dir", "seed", *arguments}]
    if missing:
        raise ValueError(f"dataset {name} needs the arguments {missing}, but they were not given.")
