"""Finds the files of a data set, and says what is missing and where to get it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Files that make up a data set together.

    Attributes:
        dataset: its name, for messages.
        folders: where they may lie below the data_dir, "." being the data_dir itself; the first that has all of them is used.
        files: what a file is -> the names it may have.
        origin: where to get them.
    """

    dataset: str
    folders: Sequence[str]
    files: Mapping[str, Sequence[str]]
    origin: str

    def find(self, data_dir: Path) -> dict[str, Path] | None:
        """What a file is -> where it lies; None when no folder has all files."""
        for folder in self.folders:
            paths: dict[str, Path] = {}
            for role, names in self.files.items():
                existing = [path for name in names if (path := data_dir / folder / name).is_file()]
                if existing:
                    paths[role] = existing[0]
            if len(paths) == len(self.files):
                return paths
        return None

    def need(self, data_dir: Path | None) -> dict[str, Path]:
        """As `find`.

        Raises:
            FileNotFoundError: no data_dir, or files are missing.
        """
        folder = need_folder(self.dataset, data_dir, self.origin)
        paths = self.find(folder)
        if paths is None:
            raise FileNotFoundError(missing(self.dataset, folder, [self]))
        return paths


def need_folder(dataset: str, data_dir: Path | None, origin: str) -> Path:
    """The data_dir.

    Raises:
        FileNotFoundError: none was given, or it does not exist.
    """
    if data_dir is None:
        raise FileNotFoundError(f"dataset {dataset} needs a data_dir with its files, but none was given; get them from {origin}.")
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"dataset {dataset}: the data_dir {data_dir} must be a folder, but is none; get files from {origin}."
        )
    return data_dir


def missing(dataset: str, data_dir: Path, layouts: Sequence[Layout]) -> str:
    """The message for a folder that has none of `layouts` whole."""
    expected = "; or ".join(
        f"{', '.join(' or '.join(n) for n in layout.files.values())} in one of {list(layout.folders)}" for layout in layouts
    )
    origins = " or ".join(dict.fromkeys(layout.origin for layout in layouts))
    return f"dataset {dataset}: {data_dir} must contain all of {expected}, but does not; get them from {origins}."
