"""Dashboard, alert rules and their document speak of the metrics that there are, and of all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loyalty_pipelines.domain.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
METRIC = re.compile(r"\bloyalty_[a-z0-9_]+\b(?!\.)")
LABELS = {metric.name: set(metric.labels) for metric in METRICS}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Return every expression of the dashboard and the rules by where it is."""
    found = {rule["alert"]: rule["expr"] for rule in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table in a section of the document."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(("where", "expression"), sorted(expressions().items()))
def test_an_expression_has_only_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    used = set(METRIC.findall(expression))
    assert used
    assert used <= set(LABELS)
    for name, selector in re.findall(r"(loyalty_[a-z_]+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= LABELS[name], where
    grouped = {
        label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(",")
    }
    assert grouped <= set().union(*(LABELS[name] for name in used)), where


def test_every_metric_is_in_the_dashboard_or_in_a_rule() -> None:
    used = {name for expression in expressions().values() for name in METRIC.findall(expression)}
    assert used == set(LABELS)


def test_every_metric_is_documented_with_its_labels() -> None:
    documented = {name.strip("`"): {one.strip() for one in labels.split(",") if one.strip()}
                  for name, labels, *_ in rows("What is measured")}  # fmt: skip
    assert documented == LABELS


def test_every_alert_is_documented_with_its_severity_and_runbook() -> None:
    documented = {name.strip("`"): (severity, re.findall(r"\((.*)\)", see)[0])
                  for name, severity, _, see in rows("What each alert means")}  # fmt: skip
    assert documented == {
        rule["alert"]: (
            rule["labels"]["severity"],
            re.sub(r"^docs/metrics\.md", "", rule["annotations"]["runbook"]).removeprefix("docs/"),
        )
        for rule in ALERTS
    }


def test_no_metric_has_a_label_that_prometheus_or_the_pushgateway_overwrites() -> None:
    assert not {"job", "instance"} & set().union(*LABELS.values())


def test_names_have_the_prefix_and_a_unit_that_prometheus_knows() -> None:
    for metric in METRICS:
        assert METRIC.fullmatch(metric.name)
        # A total only grows; these are gauges.
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert metric.text.endswith(".")


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_leads_to_a_section_that_there_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("P0", "P1", "P2")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert_there(rule["annotations"]["runbook"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_where_to_read_on(panel: dict[str, Any]) -> None:
    documents = re.findall(r"docs/[\w/-]+\.md", panel["description"])
    assert documents
    for document in documents:
        assert_there(document)
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        names = METRIC.findall(target["expr"])
        if any("merchant" in LABELS[name] for name in names):
            assert 'merchant=~"$merchant"' in target["expr"]


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]} == {
        "datasource": "datasource",
        "merchant": "query",
    }
    assert "id" not in DASHBOARD, "Grafana gives it one"
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def assert_there(link: str) -> None:
    """Fail unless a document is there, and the section that the link names, as GitHub makes anchors."""
    path, _, anchor = link.partition("#")
    assert (ROOT / path).is_file(), path
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    anchors = {"".join(c for c in one.lower().replace(" ", "-") if c.isalnum() or c in "-_") for one in headings}
    assert not anchor or anchor in anchors, link
