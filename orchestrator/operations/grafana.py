"""Files with which Prometheus collects the metrics of a campaign and Grafana draws them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.operations.gauges import CHANGES, PREFIX

SCRAPE_S = 10
SOURCE = "coppice-prometheus"
"""How the dashboard and the data source know each other."""
README = """How to draw the metrics of the campaign {campaign}
{line}

1. Open the tunnel that `coppice dashboard` prints.
2. Start Prometheus in this folder:    prometheus --config.file=prometheus.yml --web.listen-address=127.0.0.1:9090
3. Start Grafana with its provisioning from here:
       GF_PATHS_PROVISIONING="$PWD/grafana" GF_SERVER_HTTP_ADDR=127.0.0.1 grafana server --homepath /usr/share/grafana
   or, where Grafana runs already, import grafana/dashboards/coppice.json (its data source: http://127.0.0.1:9090).
4. Look at http://127.0.0.1:3000, dashboard "Coppice".

When the campaign is started anew its Ray listens elsewhere: open the new tunnel and write these files again.
"""


def write_grafana(folder: Path, campaign: str, target: str) -> list[Path]:
    """Write the files; returns their paths.

    Args:
        folder: is made where it is missing; files of these names in it are replaced.
        campaign: its name.
        target: `host:port` where Prometheus finds the metrics.

    Raises:
        OSError: the folder cannot be written.
    """
    source = {"name": "Coppice", "uid": SOURCE, "type": "prometheus", "access": "proxy", "url": "http://127.0.0.1:9090"}
    boards = folder / "grafana" / "dashboards"
    provider = {"name": "coppice", "type": "file", "options": {"path": str(boards.absolute())}}
    title = f"How to draw the metrics of the campaign {campaign}"
    contents = {
        folder / "README.txt": README.format(campaign=campaign, line="=" * len(title)),
        folder / "prometheus.yml": yaml.safe_dump(_prometheus(campaign, target), sort_keys=False),
        folder / "grafana" / "datasources" / "coppice.yaml": yaml.safe_dump({"apiVersion": 1, "datasources": [source]}),
        boards / "coppice.yaml": yaml.safe_dump({"apiVersion": 1, "providers": [provider]}),
        boards / "coppice.json": json.dumps(dashboard(), indent=1),
    }
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.encode())
    return list(contents)


def _prometheus(campaign: str, target: str) -> dict[str, Any]:
    job = {"job_name": "coppice", "static_configs": [{"targets": [target], "labels": {"started_as": campaign}}]}
    return {"global": {"scrape_interval": f"{SCRAPE_S}s"}, "scrape_configs": [job]}


def dashboard() -> dict[str, Any]:
    """Grafana's dashboard: trials by state, the metric, sizes and compute over time, changes by kind."""
    ours = '{campaign=~"$campaign",trial=~"$trial"}'
    metric = ours[:-1] + ',metric=~"$metric"}'
    panels = [
        _panel("Trials by state", f'sum by (state) ({PREFIX}coppice_trials{{campaign=~"$campaign"}})', "{{state}}", "stat"),
        _panel("Changes by kind", f"sum by (kind) ({PREFIX}{CHANGES}_total{ours})", "{{kind}}", "stat"),
        _panel("$metric", f"{PREFIX}coppice_metric{metric}", "{{trial}} {{metric}}"),
        _panel("Epochs", f"{PREFIX}coppice_epochs{ours}", "{{trial}}"),
        _panel("Parameters", f"{PREFIX}coppice_parameters{ours}", "{{trial}}"),
        _panel("FLOPs of a forward", f"{PREFIX}coppice_flops{ours}", "{{trial}}"),
        _panel("Training FLOPs spent", f"{PREFIX}coppice_compute_flops{ours}", "{{trial}}"),
        _panel("Changes", f"sum by (trial, kind) ({PREFIX}{CHANGES}_total{ours})", "{{trial}} {{kind}}"),
    ]
    for place, panel in enumerate(panels):
        panel |= {"id": place + 1, "gridPos": {"h": 8, "w": 12, "x": 12 * (place % 2), "y": 8 * (place // 2)}}
    return {
        "uid": "coppice", "title": "Coppice", "schemaVersion": 39, "refresh": f"{SCRAPE_S}s", "panels": panels,
        "time": {"from": "now-6h", "to": "now"}, "templating": {"list": _variables()},
    }  # fmt: skip


def _panel(title: str, expression: str, legend: str, kind: str = "timeseries") -> dict[str, Any]:
    source = {"type": "prometheus", "uid": SOURCE}
    target = {"refId": "A", "expr": expression, "legendFormat": legend, "datasource": source}
    return {"title": title, "type": kind, "datasource": source, "targets": [target]}


def _variables() -> list[dict[str, Any]]:
    def variable(name: str, query: str) -> dict[str, Any]:
        source = {"type": "prometheus", "uid": SOURCE}
        return {
            "name": name, "type": "query", "datasource": source, "query": query, "refresh": 2, "multi": True, "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
        }  # fmt: skip

    epochs, metric = f"{PREFIX}coppice_epochs", f"{PREFIX}coppice_metric"
    return [
        variable("campaign", f"label_values({epochs}, campaign)"),
        variable("trial", f'label_values({epochs}{{campaign=~"$campaign"}}, trial)'),
        variable("metric", f'label_values({metric}{{campaign=~"$campaign"}}, metric)'),
    ]
