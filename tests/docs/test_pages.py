"""What the README and the pages show runs: files, commands, campaigns and Python, as a reader would type them."""

import re
from pathlib import Path

import pytest

from coppice.orchestrator.planning.load import check
from coppice.orchestrator.planning.sites import at_site
from tests.docs.pages import PAGES, ROOT, blocks, commands, python, run

WHOLE = ("tutorial.md", "concepts.md", "extend.md", "loop.md")
"""Pages that a reader can follow from top to bottom on this machine."""
ELSEWHERE = {
    "README.md": "make run and make test are what this runs in; the Python has a test of its own (tests/methods/test_readme.py)",
    "CONTRIBUTING.md": "make test is what this runs in",
    "cluster.md": "on a real Slurm: tests/cluster/test_page.py",
}
SITES = {"cluster.md": at_site("lichtenberg2", "project")}
"""Where the campaigns of a page are for."""


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_reader_can_follow_it(name: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / name
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    ran = [run(line, tmp_path) for line in commands(page) if not line.startswith("python -m pip")]
    if code := python(page):
        (tmp_path / "page.py").write_text(code)
        ran.append(run("python page.py", tmp_path))
    assert ran


def test_no_page_is_forgotten() -> None:
    for page in PAGES:
        if commands(page) or python(page):
            assert page.name in WHOLE or page.name in ELSEWHERE, f"{page.name} has commands or Python, but no test runs it"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_campaigns_are_fine(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for block in blocks(page):
        if block.language == "yaml":
            assert re.search(r"^name:", block.text, re.M), "a YAML block must be a whole campaign"
            problems = check(block.text, SITES.get(page.name, lambda spec: spec))
            assert [p for p in problems if p.path != "task.data_dir"] == [], "the data need not be on this machine"


def test_every_block_has_a_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.M)
        assert len(fences) % 2 == 0 and all(fences[::2]), page.name


def test_error_messages_of_the_page_are_those_of_the_code() -> None:
    rooms = ("methods", "orchestrator", "slurm", "coppice")
    source = " ".join(f.read_text() for room in rooms for f in (ROOT / room).rglob("*.py"))
    flat = re.sub(r'"\s*\n\s*f?"', "", source)
    headings = re.findall(r"^## `([^`]+)`$", (ROOT / "docs" / "faq.md").read_text(), re.M)
    assert len(headings) > 8
    for heading in headings:
        for part in re.split(r"\.\.\.", heading):
            words = part.strip(" ,;'`")
            assert len(words) < 8 or words in flat, f"{heading}: no message says {words!r}"
