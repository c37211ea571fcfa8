"""Sites are data: what each wants is in its file, and what a job may not have is said before it is handed in."""

from pathlib import Path

import pytest

from coppice.slurm.request import Request, options
from coppice.slurm.site import SiteError, known_sites, load_site


@pytest.mark.parametrize("name", known_sites())
def test_every_site_takes_a_small_job_with_and_without_gpus(name: str) -> None:
    site = load_site(name)
    assert site.name == name and site.about
    found = options(site, Request(30, gpus=1, account="p123"))
    assert found["time"] == "30" and any("gpu" in v or "gpu" in k for k, v in found.items())
    if any(q.gpus != "only" for q in site.queues):
        assert not any("gpu" in k or "gpu" in v for k, v in options(site, Request(30, account="p123")).items())


def test_lichtenberg() -> None:
    found = options(load_site("lichtenberg2"), Request(600, nodes=2, gpus=4, gpu_type="a100", account="project02345"))
    assert found == {
        "time": "600", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "24", "gres": "gpu:a100:4",
        "mem-per-cpu": "3840M", "account": "project02345",
    }  # fmt: skip


def test_jean_zay_writes_the_account_by_kind_of_gpu() -> None:
    site = load_site("jean_zay")
    found = options(site, Request(5000, gpus=2, account="abc"))
    assert (found["account"], found["qos"], found["constraint"]) == ("abc@v100", "qos_gpu-t4", "v100-32g")
    assert options(site, Request(60, account="abc"))["account"] == "abc@cpu"
    with pytest.raises(SiteError, match="at most 1200 min"):
        options(site, Request(5000, gpus=2, gpu_type="h100", account="abc"))


def test_perlmutter_has_accounts_and_constraints_for_both() -> None:
    site = load_site("perlmutter")
    found = options(site, Request(20, gpus=4, account="m1"))
    assert (found["account"], found["qos"], found["constraint"], found["gpus-per-node"]) == ("m1_g", "debug", "gpu", "4")
    found = options(site, Request(200, nodes=9, account="m1"))
    assert (found["account"], found["qos"], found["constraint"], found["exclusive"]) == ("m1", "regular", "cpu", "")


@pytest.mark.parametrize(("request_", "said"), [
    (Request(60, gpus=1), "wants an account"),
    (Request(60, gpus=1, account="$(id)"), "letters, digits"),
    (Request(60, gpus=8, gpu_type="a100", account="p"), "at most 4 such GPUs"),
    (Request(60, gpus=1, gpu_type="a1000", account="p"), r"did you mean a100\?"),
    (Request(99999, account="p"), "at most 10080 min"),
])  # fmt: skip
def test_what_the_site_does_not_have_is_said(request_: Request, said: str) -> None:
    with pytest.raises(SiteError, match=said):
        options(load_site("lichtenberg2"), request_)


def test_one_s_own_site_is_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("queues: [{partition: gpu, max_min: 60, max_nodes: 1}]\n")
    assert options(load_site(mine), Request(60)) == {
        "time": "60", "nodes": "1", "ntasks-per-node": "1", "cpus-per-task": "1", "partition": "gpu"}  # fmt: skip
    with pytest.raises(SiteError, match="has none; set resources"):
        options(load_site(mine), Request(60, gpus=1))
    with pytest.raises(SiteError, match="no queue of site mine takes jobs of 2 nodes"):
        options(load_site(mine), Request(60, nodes=2))


@pytest.mark.parametrize(("text", "said"), [
    ("queues: [{partition: 'a; rm -rf /', max_min: 60}]", "queues.0.partition"),
    ("queues: [{partition: \"a\\nb\", max_min: 60}]", "queues.0.partition"),
    ("queues: [{constraint: '$(reboot)', max_min: 60}]", "queues.0.constraint"),
    ("queues: []", "queues"),
    ("queues: [{max_min: 60}]\nacount: {required: true}", "did you mean 'account'"),
    ("queues: [{max_min: 0}]\nlimits: {array: 5}", "3 problems"),
    ("queues: [{max_min: 5}]\ngpu_style: gres-typed\ngpu_nodes: [{per_node: 4}]", "needs a type"),
    ("- a", "must be a mapping"),
    ("queues: [", "must be YAML"),
])  # fmt: skip
def test_what_is_wrong_in_a_site_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SiteError, match=said):
        load_site(tmp_path / "bad.yaml")


def test_unknown_sites_name_the_nearest() -> None:
    with pytest.raises(SiteError, match=r"did you mean lichtenberg2\?"):
        load_site("lichtenberg")
    with pytest.raises(SiteError, match="must be readable"):
        load_site("no/such.yaml")
