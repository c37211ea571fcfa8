"""Which errors are those of the surroundings, and where they happened."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coppice.orchestrator.folder.checkpoint import CheckpointError
from coppice.orchestrator.folder.surroundings import KNOWN, Trouble, check_room, is_over, trouble_of


def os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def caused(error: Exception, by: BaseException, explicitly: bool) -> Exception:
    try:
        try:
            raise by
        except type(by) as first:
            if explicitly:
                raise error from first
            raise error  # noqa: B904 (what is raised while another error is handled)
    except type(error) as raised:
        return raised


@pytest.mark.parametrize("number", [*KNOWN])
def test_numbers_of_the_table_are_known_behind_other_errors_too(number: int, tmp_path: Path) -> None:
    told = Trouble(number, tmp_path / "x")
    error = os_error(number, tmp_path / "x")
    assert trouble_of(error, tmp_path) == told
    assert trouble_of(caused(CheckpointError("must be writable"), error, explicitly=True), tmp_path) == told
    assert trouble_of(caused(RuntimeError("while that was handled"), error, explicitly=False), tmp_path) == told
    assert str(told) == f"{KNOWN[number]}: {tmp_path / 'x'}"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (RuntimeError('Error while serializing: IoError(Os { code: 28 }) (os error 28)'), errno.ENOSPC),
        (RuntimeError("rank 1: OSError: [Errno 122] Disk quota exceeded"), errno.EDQUOT),
    ],
)
def test_where_no_path_is_told_it_is_the_trials(error: Exception, number: int, tmp_path: Path) -> None:
    assert trouble_of(error, tmp_path) == Trouble(number, tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: FileNotFoundError(errno.ENOENT, "No such file or directory", str(path)),
        lambda path: PermissionError(errno.EACCES, "Permission denied", str(path)),
        lambda path: ValueError("28 is too many"),
        lambda path: RuntimeError("CUDA out of memory, os error 2"),
        lambda path: OSError("without a number"),
    ],
)
def test_other_errors_are_the_trials_own(make: Callable[[Path], Exception], tmp_path: Path) -> None:
    assert trouble_of(make(tmp_path), tmp_path) is None


def test_room_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    check_room(tmp_path)
    assert is_over(Trouble(errno.ENOSPC, tmp_path / "not" / "there"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        check_room(tmp_path / "gone")
