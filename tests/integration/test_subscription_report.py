"""The report on money at risk: what it says, its files, its command, its asset, and its mail, once a day."""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from loyalty_pipelines.assets.subscriptions import SUBSCRIPTION_REPORT
from loyalty_pipelines.db import findings
from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.subscription_report import lease_mail, report_subscriptions
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.alert_messages import Links
from loyalty_pipelines.domain.fix_plans import UPDATE, FixTarget, PlanRefusal
from loyalty_pipelines.domain.fixes import ACTIONS, FIXES, Means, fix_of, missing_actions
from loyalty_pipelines.domain.money import amounts_by_currency
from loyalty_pipelines.domain.source_mapping import NoMappingError
from loyalty_pipelines.domain.subscription_report import (
    AGES,
    SubscriptionReport,
    ages_together,
    classes_together,
    trend_together,
)
from loyalty_pipelines.domain.subscriptions import BY_CODE, SUBJECT
from loyalty_pipelines.report_files.subscriptions import subscription_files
from tests.cli import Cli
from tests.mail_server import MailServer, mail_server
from tests.shop import Shop

UTC_ZONE = ZoneInfo("UTC")


def finding(
    shop: Shop,
    object_id: str,
    amount: Any = 10,
    *,
    merchant: str = "m1",
    class_name: str = "captured_twice",
    currency: str | None = "EUR",
    seen: str = "2 hours",
    closed: str | None = None,
    accepted: str | None = None,
    **evidence: Any,
) -> None:
    """Write a finding; `seen`, `closed`, `accepted`: how long ago."""
    known = BY_CODE.get(class_name)
    shop.run(
        "INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id, amount_at_risk, "
        "currency, policy, evidence, first_seen_at, closed_at, accepted_at) VALUES (:merchant, 'subscriptions', "
        ":class, :severity, 'payment', :id, :amount, :currency, :policy, CAST(:evidence AS jsonb), "
        "now() - CAST(:seen AS interval), now() - CAST(:closed AS interval), now() - CAST(:accepted AS interval))",
        merchant=merchant,
        id=object_id,
        amount=amount,
        currency=currency,
        policy=known.policy if known else None,
        severity=known.severity if known else "error",
        evidence=json.dumps(evidence),
        seen=seen,
        closed=closed,
        accepted=accepted,
        **{"class": class_name},
    )


@pytest.fixture
def wrong(shop: Shop) -> Shop:
    """A shop with findings of two merchants, in two currencies, of all ages."""
    shop.merchant("m2", currency="JPY")
    finding(shop, "a", 30, seen="30 minutes", payment_id="a", customer_id="=cmd()", subscription_ids=["s1", "s2"])
    # Two findings of one object: what it costs is the larger one.
    finding(shop, "a", 12, class_name="amount_differs", seen="3 days")
    finding(shop, "b", 20, seen="40 days")
    finding(shop, "c", 500, seen="2 days", accepted="1 day")
    finding(shop, "d", 7, seen="5 days", closed="2 hours")
    finding(shop, "e", 9000, merchant="m2", class_name="period_gap", currency="JPY", seen="10 days")
    finding(shop, "f", 0, merchant="m2", class_name="status_unknown", currency=None, seen="2 hours")
    finding(shop, "g", 99, merchant="m1", seen="20 days", closed="12 days")
    return shop


def reported(shop: Shop, merchant: str | None = None) -> SubscriptionReport:
    return report_subscriptions(shop.engine, merchant, timezone=UTC_ZONE)


def files(report: SubscriptionReport, **options: Any) -> dict[str, str]:
    return {one.name: one.content.decode() for one in subscription_files(report, run_id="run-1", **options)}


def test_the_one_number_is_the_money_at_risk_that_findings_say_and_ages_add_up_to_it(wrong: Shop) -> None:
    report = reported(wrong)
    assert dict(report.money) == {"EUR": Decimal(50), "JPY": Decimal(9000)}
    with reading(wrong.engine) as conn:
        at_risk = findings.at_risk(conn, subject=SUBJECT)
    sums = amounts_by_currency((one.currency, one.amount) for one in at_risk)
    assert {name: amount for name, amount in sums.items() if amount} == report.money
    assert (report.open_findings, report.new_findings, report.closed_findings) == (5, 2, 1)
    ages = {(one.currency, one.label): (one.findings, one.amount) for one in ages_together(report.ages) if one.findings}
    assert ages == {
        ("EUR", "1 to 7 days"): (2, Decimal(30)),
        ("EUR", "over 30 days"): (1, Decimal(20)),
        ("JPY", "7 to 30 days"): (1, Decimal(9000)),
        (None, "1 hour to 1 day"): (1, Decimal(0)),
    }
    assert len([one for one in ages_together(report.ages) if one.currency == "EUR"]) == len(AGES)


def test_a_report_of_one_merchant_has_nothing_of_the_others(wrong: Shop) -> None:
    report = reported(wrong, "m2")
    assert dict(report.money) == {"JPY": Decimal(9000)}
    assert [one.merchant_id for one in report.merchants] == ["m2"]
    assert {one.object_id for one in report.findings} == {"e", "f"}
    assert {one.merchant_id for one in (*report.classes, *report.ages, *report.trend)} == {"m2"}


def test_the_trend_says_what_was_open_at_the_end_of_each_of_the_last_days(wrong: Shop) -> None:
    report = reported(wrong)
    days = {one.day_on: one for one in trend_together(report.trend, report.days) if one.currency == "EUR"}
    today = datetime.now(UTC).date()
    assert (len(days), min(days), max(days)) == (31, today - timedelta(days=30), today)
    assert days[today].amount == report.money["EUR"]
    assert (days[today].errors, days[today].warnings) == (3, 0)
    # b; with g, which was closed since; b again; with d, which was closed today. Yesterday somebody accepted c.
    amounts = {number: days[today - timedelta(days=number)].amount for number in (30, 15, 8, 4)}
    assert amounts == {30: 20, 15: 119, 8: 20, 4: 27}
    yesterday = days[today - timedelta(days=1)].amount
    assert yesterday in (39, 539)


def test_what_was_fixed_or_undone_in_the_last_day_is_listed_and_what_was_before_is_not(wrong: Shop) -> None:
    for key, status, applied, undone in (("x", "applied", "3 hours", None), ("y", "undone", "9 days", "1 hour"),
                                         ("z", "applied", "2 days", None), ("w", "planned", None, None)):  # fmt: skip
        wrong.run(
            "INSERT INTO loyalty.fix_plans (merchant_id, fix_key, finding_id, class, object_type, object_id, policy, "
            "action, explanation, before, after, evidence, amount, currency, status, planned_by, expires_at, "
            "applied_at, applied_by, undone_at) VALUES ('m1', :key, 1, 'paid_without_subscription', 'payment', :key, "
            "'A', 'create_subscription', 'x', '{}', '{}', '{}', 30, 'EUR', :status, 'test', now(), "
            "now() - CAST(:applied AS interval), 'ops', now() - CAST(:undone AS interval))",
            key=key,
            status=status,
            applied=applied,
            undone=undone,
        )
    report = reported(wrong)
    assert [(one.object_id, one.status) for one in report.fixes] == [("y", "undone"), ("x", "applied")]
    made = files(report)
    assert [one["object_id"] for one in json.loads(made["subscriptions.json"])["fixes_of_a_day"]] == ["y", "x"]
    assert "create_subscription" in made["subscriptions.html"]
    assert reported(wrong, "m2").fixes == []


def test_a_run_has_a_page_that_stands_alone_a_document_and_a_file_per_class(wrong: Shop) -> None:
    wrong.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('<b>x', 'x', 'UTC', 'EUR')")
    finding(wrong, "<script>", 5, merchant="<b>x", note="<i>")
    made = files(reported(wrong))
    assert set(made) == {"subscriptions.html", "subscriptions.json", *(f"{code}.csv" for code in BY_CODE)}
    page = made["subscriptions.html"]
    # A chart of the trend and one of the ages for each of three currencies.
    assert page.count("<svg") == 6
    assert "<b>x" not in page and "&lt;b&gt;x" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "55.00" in page.replace("55 <span", "55.00 <span") and "9,000" in page
    document = json.loads(made["subscriptions.json"])
    assert document["money_at_risk"] == {"EUR": "55", "JPY": "9000"}
    assert {one["merchant_id"] for one in document["merchants"]} == {"m1", "m2", "<b>x"}
    (m2,) = (one for one in document["merchants"] if one["merchant_id"] == "m2")
    assert (m2["findings"], m2["money_at_risk"], len(m2["classes"])) == (2, {"JPY": "9000"}, 2)


def test_the_page_says_what_each_class_means_and_where_its_runbook_is(wrong: Shop) -> None:
    report = reported(wrong)
    page = files(report)["subscriptions.html"]
    assert "Expected: No order and no period of a subscription was paid twice." in page
    assert "docs/runbooks/subscriptions.md#captured_twice" in page and "<a href" not in page
    linked = files(report, links=Links(docs="https://docs.example.com"))["subscriptions.html"]
    assert '<a href="https://docs.example.com/docs/runbooks/subscriptions.md#captured_twice">runbook</a>' in linked


def test_amounts_are_rounded_and_currencies_in_one_order_everywhere(wrong: Shop, database_url: str) -> None:
    finding(wrong, "h", "0.305", currency="CHF")
    finding(wrong, "i", 7, currency=None)
    report = reported(wrong)
    currencies = ["CHF", "EUR", "JPY", None]
    assert list(report.money) == ["CHF", "EUR", "JPY", "of unknown currency"]
    assert list(dict.fromkeys(one.currency for one in ages_together(report.ages))) == currencies
    assert list(dict.fromkeys(one.currency for one in trend_together(report.trend, report.days))) == currencies
    twice = [one.currency for one in classes_together(report.classes) if one.class_name == "captured_twice"]
    assert [one for one in currencies if one in twice] == twice
    page = files(report)["subscriptions.html"]
    assert re.findall(r"<h2>(.{3}|of unknown currency)</h2>", page) == ["CHF", "EUR", "JPY", "of unknown currency"]
    said = "0.31 CHF and 50.00 EUR and 9,000 JPY and 7.00 of unknown currency"
    cli = Cli(database_url)
    assert said in cli.ok("reports", "subscriptions").out
    for text in (page, cli.ok("reports", "subscriptions").out, cli.ok("subscriptions", "findings").out):
        assert "0.31 CHF" in text and "0.305" not in text


def test_classes_that_can_have_no_plan_are_named_with_what_the_mapping_lacks(wrong: Shop, database_url: str) -> None:
    said = (
        "No plan can be made for captured_twice, amount_differs: the source mapping has no fixes.refund_payment. Add "
        "it, or put it right by hand, as the runbook says."
    )
    report = reported(wrong)
    assert list(report.without_plans) == [said]
    made = files(report)
    assert said in made["subscriptions.html"]
    assert json.loads(made["subscriptions.json"])["without_plans"] == [said]
    assert said in Cli(database_url).ok("reports", "subscriptions").out
    assert reported(wrong, "m2").without_plans == []


def test_every_class_that_has_fixes_says_which_entry_of_the_mapping_they_need() -> None:
    nothing = Means(actions=(), statuses=(), columns=())
    assert set(FIXES) - set(missing_actions(nothing)) == {"paid_order_without_points", "points_without_paid_order"}
    assert missing_actions(Means(actions=set(ACTIONS.values()), statuses=(), columns=())) == {}
    updating = missing_actions(Means(actions={UPDATE}, statuses=(), columns=()))
    assert set(updating) == {"captured_twice", "charged_after_cancel", "amount_differs", "pending_too_long"}
    now = datetime.now(UTC)
    evidence = {
        "subscription_id": "s",
        "payment_id": "p",
        "customer_id": "c",
        "plan_id": "b",
        "amount": 3,
        "refunded_amount": 1,
        "expected_amount": 1,
        "period_start": (now - timedelta(days=1)).isoformat(),
        "period_end": (now + timedelta(days=1)).isoformat(),
        "paid_until": (now + timedelta(days=1)).isoformat(),
    }
    for name, action in missing_actions(nothing).items():
        target = FixTarget(
            finding_id=1,
            merchant_id="m1",
            class_name=name,
            object_type="subscription",
            object_id="s",
            policy="P",
            amount_at_risk=Decimal(3),
            currency="EUR",
            evidence=evidence,
            evidence_text="",
        )
        refused = fix_of(target, nothing, now)
        assert isinstance(refused, PlanRefusal) and f"fixes.{action}:" in refused.reason, name


def test_a_class_file_has_each_open_finding_with_a_column_for_each_part_of_its_evidence(wrong: Shop) -> None:
    rows = list(csv.DictReader(io.StringIO(files(reported(wrong))["captured_twice.csv"])))
    assert [one["object_id"] for one in rows] == ["a", "b"]
    first = rows[0]
    assert (first["policy"], first["amount_at_risk"], first["currency"], first["age_hours"]) == (
        "P",
        "30",
        "EUR",
        "0.5",
    )
    assert (first["evidence_payment_id"], first["evidence_subscription_ids"]) == ("a", '["s1", "s2"]')
    # To a spreadsheet it would be a formula.
    assert first["evidence_customer_id"] == "'=cmd()"
    empty = files(reported(wrong))["charged_after_cancel.csv"]
    assert empty.startswith("merchant_id,finding_id,") and len(empty.splitlines()) == 1


def test_a_shop_where_nothing_is_wrong_has_a_page_that_says_so(shop: Shop) -> None:
    made = files(reported(shop))
    assert "no money at risk" in made["subscriptions.html"] and "Nothing is open." in made["subscriptions.html"]
    assert json.loads(made["subscriptions.json"])["money_at_risk"] == {}


def test_without_a_mapping_there_is_no_report(engine) -> None:
    with pytest.raises(NoMappingError):
        report_subscriptions(engine, timezone=UTC_ZONE)


def test_the_command_prints_writes_files_and_one_document(wrong: Shop, database_url: str, tmp_path: Path) -> None:
    cli = Cli(database_url)
    out = cli.ok("reports", "subscriptions").out
    assert "captured_twice" in out and "over 30 days" in out
    assert "50.00 EUR and 9,000 JPY at risk: 5 open findings, 2 new since yesterday." in out
    assert "captured_twice" not in cli.ok("reports", "subscriptions", "--merchant", "m2").out
    document = cli.ok("reports", "subscriptions", "--json").document
    assert (document["money_at_risk"], document["findings"]) == ({"EUR": "50", "JPY": "9000"}, 5)
    written = cli.ok("reports", "subscriptions", "--merchant", "m1", "--to", tmp_path / "out").out.splitlines()
    assert len(written) == 2 + len(BY_CODE)
    assert all(Path(one).is_file() for one in written)
    assert "NOBODY" in cli.refused(1, "reports", "subscriptions", "--merchant", "NOBODY")
    wrong.run(
        "INSERT INTO loyalty.merchant_jobs (merchant_id, job, failed_at, failure) "
        "VALUES ('m1', 'subscription_mismatches', now(), 'out of range')"
    )
    assert "merchant m1 failed: out of range" in cli.refused(1, "reports", "subscriptions")


# --- the asset, and its mail ---


@pytest.fixture
def mta() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


@pytest.fixture
def instance(
    wrong: Shop, database_url: str, mta: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance that writes reports to the test's folder and mails to two people."""
    for name, value in {
        "LOYALTY_DATABASE_URL": database_url,
        "LOYALTY_REPORTS_URL": str(tmp_path / "reports"),
        "LOYALTY_MAIL_URL": mta.url(),
        "LOYALTY_MAIL_FROM": "Loyalty <loyalty@example.com>",
        "LOYALTY_ALERT_EMAIL_TO": "ops@example.com, boss@example.com",
        "LOYALTY_DAGSTER_URL": "https://dagster.example.com",
        "LOYALTY_DOCS_URL": "https://docs.example.com",
    }.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def write(instance: dg.DagsterInstance, **config: Any) -> dict[str, Any]:
    """Run the report; return the metadata of its materialization."""
    result = defs.resolve_job_def("subscription_report_job").execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"ops": {"loyalty__subscription_report": {"config": config}}},
    )
    assert result.success
    record = instance.fetch_materializations(SUBSCRIPTION_REPORT, limit=1).records[0]
    assert record.run_id == result.run_id and record.asset_materialization
    return dict(record.asset_materialization.metadata)


def test_a_run_writes_the_files_shows_the_same_and_mails_the_summary_once_a_day(
    wrong: Shop, instance: dg.DagsterInstance, mta: MailServer, tmp_path: Path
) -> None:
    shown = write(instance)
    assert (shown["money at risk EUR"].value, shown["findings"].value, shown["mail"].value) == (
        50.0, 5, "sent to 2 addresses",
    )  # fmt: skip
    classes = {one.data["class"]: one.data["findings"] for one in shown["classes"].records}
    assert classes == {"captured_twice": 2, "amount_differs": 1, "period_gap": 1, "status_unknown": 1}
    assert sum(one.data["at risk"] for one in shown["ages"].records) == 9050.0
    page = Path(shown["subscriptions.html"].value)
    assert "captured_twice" in page.read_text()
    latest = tmp_path / "reports" / "subscription_report" / "latest.html"
    assert page.parent.name in latest.read_text()
    assert mta.recipients == ["ops@example.com", "boss@example.com"]
    mail = mta.mails[0]
    assert mail.message["Subject"] == (
        "Payments and subscriptions: 50.00 EUR and 9,000 JPY at risk, 5 findings (2 new)"
    )
    text = mail.body("plain")
    assert "captured_twice (error, policy P): 2 findings, 50.00 EUR, 1 new, 1 closed, oldest 40 days" in text
    assert "status_unknown (warning, policy H): 1 finding, 1 new, 0 closed, oldest 2 h" in text
    assert "Policy: A is put right by 'loyalty subscriptions apply'" in text
    assert (
        "No plan can be made for captured_twice, amount_differs: the source mapping has no fixes.refund_payment."
        in text
    )
    assert '<a href="https://docs.example.com/docs/runbooks/subscriptions.md#' in page.read_text()
    assert "https://dagster.example.com/assets/loyalty/subscription_report" in text
    assert "https://docs.example.com/docs/runbooks/subscriptions.md" in text
    again = write(instance)
    assert again["mail"].value.startswith("not sent: that of ") and len(mta.mails) == 2
    # One merchant's by hand leaves the newest of all, and tells nobody.
    wrong.run("DELETE FROM loyalty.subscription_mails")
    one = write(instance, merchant="m2")
    assert (one["mail"].value, len(mta.mails)) == ("not sent: the report is of one merchant", 2)
    assert Path(again["subscriptions.html"].value).parent.name in latest.read_text()


def test_a_mail_server_that_is_down_fails_nothing_and_the_next_run_of_the_day_tells(
    instance: dg.DagsterInstance, mta: MailServer
) -> None:
    mta.refuse("mail", "451 4.3.0 come back later")
    assert write(instance)["mail"].value.startswith("not sent, the next run of the day tries again: ")
    assert mta.mails == []
    del mta.rules["mail"]
    assert write(instance)["mail"].value == "sent to 2 addresses"
    assert len(mta.mails) == 2
    assert write(instance)["mail"].value.startswith("not sent: that of ")


def test_whoever_is_sending_the_mail_of_a_day_sends_it_alone_until_it_dies(
    wrong: Shop, instance: dg.DagsterInstance, mta: MailServer
) -> None:
    on = reported(wrong).days[-1]
    assert lease_mail(wrong.engine, on=on, run_id="other")
    assert write(instance)["mail"].value.startswith("not sent: that of ") and mta.mails == []
    wrong.run("UPDATE loyalty.subscription_mails SET leased_until = now()")
    assert write(instance)["mail"].value == "sent to 2 addresses"


def test_nobody_is_mailed_where_no_address_is_set_and_a_wrong_one_is_said(
    instance: dg.DagsterInstance, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_ALERT_EMAIL_TO", "nobody")
    assert "Entry 1 of LOYALTY_ALERT_EMAIL_TO is no e-mail address" in write(instance)["mail"].value
    monkeypatch.delenv("LOYALTY_ALERT_EMAIL_TO")
    assert write(instance)["mail"].value == "not sent: LOYALTY_ALERT_EMAIL_TO is not set"
    assert mta.mails == []
