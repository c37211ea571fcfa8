"""`coppice plan --site`: the exact scripts, what they cost, and nothing handed in; on any machine."""

import json
from pathlib import Path

import pytest

from coppice.orchestrator.planning.load import check
from coppice.orchestrator.planning.sites import at_site
from tests.orchestrator.cli.test_elements import output

FILE = """
name: planned
root: {root}
task: {{dataset: digits, network: mlp}}
training: {{epochs: 3}}
search: {{trials: 7}}
resources: {{gpus: 2, hours: 5}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(FILE.format(root=tmp_path / "runs"))
    return path


def test_the_scripts_and_the_costs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = output("plan", str(file), "--site", "lichtenberg2", "--account", "p1", "--hours", "10")
    assert "#SBATCH --gres=gpu:a100:2" in text and "#SBATCH --time=300" in text and "#SBATCH --time=600" in text
    assert f"drive {tmp_path / 'runs' / 'planned'}" in text and "7 jobs of trials" in text
    assert "at most 3,360 core-hours" in text  # 7 trials x 5 h x the 96 cores of a whole node
    assert "a trial with 2 of 4 GPUs pays for all of them" in text and "deleted after 56 days" in text
    assert not (tmp_path / "runs").exists()


def test_a_pool_takes_whole_nodes_and_asks_for_no_more_than_its_trials_need(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text() + "placement: {pool: {nodes: 5, hours: 3}}")
    text = output("plan", str(file), "--site", "lichtenberg2", "--account", "p1")
    assert "#SBATCH --gres=gpu:a100:4" in text and "#SBATCH --cpus-per-task=96" in text and "coppice-pool-planned" in text
    assert "srun" in text and "--cpus-per-task=96 " in text and "#SBATCH --time=180" in text
    assert "4 jobs of nodes" in text and "at most 1,152 core-hours" in text  # 7 trials of half a node: 4 x 3 h x 96 cores
    assert "7 of 7 trials run at a time" in text and "the pool takes whole nodes" in text
    assert not (tmp_path / "runs").exists()


def test_as_json(file: Path) -> None:
    found = json.loads(output("plan", str(file), "--site", "juwels", "--account", "p1", "--json"))["jobs"]
    assert "--partition=booster" in found["job"] and found["jobs"] == 7 and found["core_hours"] == 7 * 5 * 48
    assert found["files"] > 7 * 10 and found["bytes"] > 0


def test_what_the_site_does_not_take_is_said(file: Path) -> None:
    with pytest.raises(ValueError, match="wants an account"):
        output("plan", str(file), "--site", "lichtenberg2")


def test_the_campaign_of_the_cluster_page_only_lacks_the_users_data() -> None:
    text = Path("docs/cluster.md").read_text().split("```yaml\n")[1].split("```")[0]
    (problem,) = check(text, at_site("lichtenberg2", "p0001"))
    assert problem.path == "task.data_dir" and "must be a folder" in problem.message
    assert {p.path for p in check(text, at_site("generic", None))} == {"task.data_dir", "placement"}
