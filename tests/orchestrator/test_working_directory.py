"""A user's own modules are found on the command line and in Ray's workers, and hide nothing that is installed."""

import os
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.working_directory import search_working_directory
from tests.support.user_folder import coppice, finished_and_widened, write_user_folder


def test_the_working_directory_is_searched_last_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/installed"])
    monkeypatch.chdir(tmp_path)
    search_working_directory()
    search_working_directory()
    assert sys.path == ["/installed", os.getcwd()]


def test_where_python_searches_it_already_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/installed"])
    search_working_directory()
    assert sys.path == ["", "/installed"]


def test_the_command_line_takes_them_for_the_users(tmp_path: Path) -> None:
    planned = coppice(write_user_folder(tmp_path), "plan", "a.yaml", "--samples", "1")
    assert planned.returncode == 0, planned.stdout + planned.stderr


@pytest.mark.slow
def test_workers_of_ray_take_them_for_the_users(tmp_path: Path) -> None:
    done = coppice(write_user_folder(tmp_path, placement={"local": {"cpus": 1}}), "run", "a.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished_and_widened(tmp_path) == ["t0000", "t0001"]
