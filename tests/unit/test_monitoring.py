"""Dashboard, alert rules and their document speak of the metrics that there are, and of all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loyalty_pipelines.checks.awards import LagConfig, MissingConfig
from loyalty_pipelines.checks.expiry import LateConfig
from loyalty_pipelines.checks.integrity import ProofAgeConfig
from loyalty_pipelines.checks.notifications import MailAgeConfig
from loyalty_pipelines.checks.reconciliation_queue import QueueAgeConfig
from loyalty_pipelines.domain import subscriptions
from loyalty_pipelines.domain.alert_table import parse_alert_table
from loyalty_pipelines.domain.alerts import State
from loyalty_pipelines.domain.integrity import CHECK_FAILED, CLASSES, PROOFS
from loyalty_pipelines.domain.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
BY_NAME = {rule["alert"]: rule for rule in ALERTS}
TABLE = parse_alert_table((ROOT / "docs" / "alerts.md").read_text())
# What Dagster has neither a check nor a job of.
OF_PROMETHEUS_ALONE = {
    "LoyaltyAwardSuccessLow",
    "LoyaltyRetriesMany",
    "LoyaltyAwardsSlow",
    "LoyaltySweepLate",
    "LoyaltyMetricsStale",
    "LoyaltyShopNotReadable",
    "LoyaltyOldSnapshot",
}
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
    } - {""}
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
                  for name, severity, _, _, see in rows("What each alert means")}  # fmt: skip
    assert documented == {
        rule["alert"]: (
            rule["labels"]["severity"],
            re.sub(r"^docs/metrics\.md", "", rule["annotations"]["runbook"]).removeprefix("docs/"),
        )
        for rule in ALERTS
    }


def test_an_alert_is_as_bad_as_the_checks_and_jobs_of_dagster_that_say_the_same() -> None:
    said = {name.strip("`"): says for name, _, _, says, _ in rows("What each alert means")}
    assert {name for name, says in said.items() if says == "-"} == OF_PROMETHEUS_ALONE
    for alert, says in said.items():
        *names, color = re.findall(r"`(\w+)`", says) + says.split(" ")[-1:]
        for name in names:
            assert name in TABLE.rows, f"{alert}: docs/alerts.md has no {name}"
            assert TABLE.rows[name].severity(State(color)) == BY_NAME[alert]["labels"]["severity"], (alert, name)


def test_an_alert_about_findings_is_as_bad_as_the_check_of_their_class() -> None:
    expected = {name: TABLE.rows[proof.sentence].red for proof in PROOFS for name in proof.classes}
    expected |= {one.code: TABLE.rows[one.sentence].red for one in subscriptions.CLASSES}
    assert TABLE.rows["every_class_was_compared"].red == TABLE.rows["every_merchant_was_proved_lately"].red
    expected[CHECK_FAILED] = TABLE.rows["every_merchant_was_proved_lately"].red
    # Of a proof that there is not yet, as in the table's last row.
    expected["of_another_proof"] = TABLE.default.red
    found = dict.fromkeys(expected, "")
    for alert in ("LoyaltyBalancesWrong", "LoyaltyFindings", "LoyaltyPaymentsWrong", "LoyaltySubscriptionFindings"):
        ((matches, pattern),) = re.findall(r'class(=~|!~)"([^"]*)"', BY_NAME[alert]["expr"])
        for name in found:
            if bool(re.fullmatch(pattern, name)) is (matches == "=~"):
                assert not found[name], f"two alerts for {name}"
                found[name] = BY_NAME[alert]["labels"]["severity"]
    # It has an alert of its own, of whatever severity its findings are.
    assert not found.pop("order_awarded_twice")
    assert BY_NAME["LoyaltyDuplicateAwards"]["labels"]["severity"] == expected.pop("order_awarded_twice")
    assert found == expected
    assert set(CLASSES) <= {*expected, "order_awarded_twice"}


@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("LoyaltyOrdersMissing", MissingConfig().max_percent / 100),
        ("LoyaltyOrdersWaitLong", LagConfig().max_minutes * 60),
        ("LoyaltyQueueOld", QueueAgeConfig().warn_after_minutes * 60),
        ("LoyaltyQueueVeryOld", QueueAgeConfig().fail_after_hours * 3600),
        ("LoyaltyIntegrityLate", ProofAgeConfig().max_hours * 3600),
        ("LoyaltyExpiryLate", LateConfig().max_hours * 3600),
        ("LoyaltyMailsWaitLong", MailAgeConfig().warn_after_minutes * 60),
        ("LoyaltyMailsWaitVeryLong", MailAgeConfig().fail_after_hours * 3600),
    ],
)
def test_an_alert_fires_from_where_its_check_does(alert: str, threshold: float) -> None:
    (compared,) = re.findall(r"> ([\d.]+)(?: \* (\d+))?(?=\s|$)", re.split(r"\band\b", BY_NAME[alert]["expr"])[0])
    assert float(compared[0]) * float(compared[1] or 1) == threshold


def test_orders_that_are_missing_are_a_share_of_all_as_in_their_check() -> None:
    assert "by (merchant)" not in BY_NAME["LoyaltyOrdersMissing"]["expr"]


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


def test_findings_are_in_the_panels_of_their_proof_and_of_no_other() -> None:
    codes = {one.code for one in subscriptions.CLASSES}
    shown = {panel["title"]: panel["targets"][0]["expr"] for panel in PANELS}
    for title, is_of_subscriptions in (("Open mismatches", True), ("Money at risk by mismatches", True),
                                       ("Open findings", False), ("Money at risk by findings", False)):  # fmt: skip
        ((matches, pattern),) = re.findall(r'class(=~|!~)"([^"]*)"', shown[title])
        assert (matches == "=~", set(pattern.split("|"))) == (is_of_subscriptions, codes), title
