"""`make docs`: the site builds without a warning, a broken link is one, and what is generated is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coppice
from coppice.methods.catalog import TABLES
from coppice.orchestrator.config.models import AdaptationSpec, Campaign, SearchSpec, TaskSpec, TrainingSpec
from coppice.scheduler.triggers import TRIGGERS
from tests.docs.pages import ROOT
from tests.support.waiting import LIMIT_S

NEEDED = ("docs", "mkdocs.yml", "coppice", "methods", "orchestrator", "scheduler", "slurm")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_key_of_the_campaign_file_is_there_with_a_word_about_it(site: Path) -> None:
    page = (site / "campaign-file" / "index.html").read_text()
    for model in (Campaign, TaskSpec, TrainingSpec, AdaptationSpec, SearchSpec):
        for name, info in model.model_fields.items():
            if name != "kind":
                assert f"<code>{info.alias or name}</code>" in page and info.description, name


def test_every_method_trigger_and_selection_is_there(site: Path) -> None:
    page = (site / "methods" / "index.html").read_text()
    for name in (*(n for table in TABLES.values() for n in table), *TRIGGERS):
        assert f"-{name}\"" in page, name


def test_every_public_name_is_there_and_no_other(site: Path) -> None:
    python, methods = ((site / name / "index.html").read_text() for name in ("python", "methods"))
    shown = {*re.findall(r'id="coppice\.[\w.]*\.(\w+)"', python), *re.findall(r"<code>coppice\.(\w+)</code>", methods)}
    assert set(coppice.__all__) - shown == set()
    headings = set(re.findall(r'<h3 id="coppice\.[\w.]*\.(\w+)"', python))
    assert headings and headings <= set(coppice.__all__)


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, symlinks=True)
        else:
            shutil.copy(source, tmp_path / name)
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0 and "nowhere.md" in done.stderr
