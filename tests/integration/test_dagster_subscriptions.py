"""The comparison of payments and subscriptions on a real Dagster instance: per merchant, checks, fixes, schedules."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from loyalty_pipelines.assets.subscriptions import SUBSCRIPTION_MISMATCHES, SUBSCRIPTION_REPORT
from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.domain.subscriptions import CLASSES, NOT_MAPPED
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.schedules import RANGE_END, RANGE_START
from tests.shop import Shop
from tests.subscription_shop import SubscriptionShop

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
# Longer ago than any grace period of a few minutes or an hour.
PAST = datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance on two merchants: m1 has a payment without its subscription, and all of m2 is right."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    for name, currency in (("m1", "EUR"), ("m2", "JPY")):
        one = SubscriptionShop(shop, name)
        if name == "m2":
            one.merchant(currency)
        one.plan(price=30, currency=currency)
        one.subscribed(at=PAST, subscription={"currency": currency}, payment={"currency": currency},
                       order={"currency": currency})  # fmt: skip
    lost = SubscriptionShop(shop, "m1")
    lost.customer("bob")
    lost.order("lost", at=PAST, customer="bob")
    lost.payment("lost", at=PAST, order="lost")
    shop.award()
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("merchant", ["m1", "m2"])
        yield made


def run(instance: dg.DagsterInstance, job: str, step: str = "", **config: Any) -> dg.ExecuteInProcessResult:
    """Run a job with this configuration of its step, for both merchants."""
    tags = {RANGE_START: "m1", RANGE_END: "m2"} if job == "subscriptions_job" else None
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags=tags,
        run_config={"ops": {step: {"config": config}}} if step else None,
    )


def compare(instance: dg.DagsterInstance, **config: bool) -> dg.ExecuteInProcessResult:
    return run(instance, "subscriptions_job", "subscription_mismatches", **{"everybody": True, **config})


def materialized(instance: dg.DagsterInstance, key: dg.AssetKey = SUBSCRIPTION_MISMATCHES) -> dict[str, dict[str, Any]]:
    """Return the newest metadata of each merchant."""
    records = instance.fetch_materializations(key, limit=100).records
    return {
        str(record.partition_key): dict(record.asset_materialization.metadata)
        for record in reversed(records)
        if record.asset_materialization
    }


def checked(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks; the run fails exactly when an error was found."""
    result = run(instance, "subscription_checks_job")
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert result.success == (not [one for one in found.values() if not one.passed and one.severity == ERROR])
    return found


def said(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Return what the run has logged."""
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def mapped(shop: Shop, *, without: tuple[str, ...] = (), **changes: Any) -> None:
    """Map the sample shop in another way."""
    mapping = yaml.safe_load(sample_shop.mapping().yaml_text)
    for name in without:
        del mapping[name]
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(yaml.safe_dump({**mapping, **changes}, sort_keys=False)))


def test_each_merchant_shows_what_was_compared_and_what_disagrees(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert compare(instance).success
    shown = materialized(instance)
    values = {name: one.value for name, one in shown["m1"].items() if name != "classes"}
    assert values == {
        "payments": 2, "subscriptions": 1, "findings": 1, "amount at risk EUR": 30.0, "compared": "everything",
    }  # fmt: skip
    (row,) = shown["m1"]["classes"].records
    assert {**row.data, "oldest": ""} == {
        "class": "paid_without_subscription", "severity": "error", "policy": "A", "findings": 1, "at risk": 30.0,
        "currency": "EUR", "oldest": "",
    }  # fmt: skip
    assert (shown["m2"]["findings"].value, shown["m2"]["payments"].value) == (0, 1)
    # Nothing changed since, and m2 has nothing to say.
    before = len(instance.fetch_materializations(SUBSCRIPTION_MISMATCHES, limit=100).records)
    assert compare(instance, full=False).success
    after = instance.fetch_materializations(SUBSCRIPTION_MISMATCHES, limit=100).records
    assert [record.partition_key for record in after[: len(after) - before]] == ["m1"]
    assert materialized(instance)["m1"]["compared"].value == "what changed"


def test_a_merchant_that_cannot_be_compared_is_named_and_the_others_are_shown(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.run("UPDATE sample_shop.payments SET captured_at = '294276-12-31 23:59:59+00' WHERE id = 'lost'")
    result = compare(instance)
    assert not result.success
    failure = result.failure_data_for_node("subscription_mismatches")
    assert failure and "1 merchant failed, all others are done: m1:" in failure.error_display_string
    assert list(materialized(instance)) == ["m2"]
    found = checked(instance)
    late, compared = found["every_merchant_was_compared_lately"], found["every_class_was_compared"]
    assert (late.passed, late.severity, late.metadata["merchants"].value) == (False, ERROR, 1)
    assert (compared.passed, compared.severity) == (False, ERROR)


def test_a_shop_without_payments_and_subscriptions_is_told_so_and_nothing_fails(
    shop: Shop, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_REPORTS_URL", str(tmp_path / "reports"))
    mapped(shop, without=("payments", "subscriptions", "plans", "fixes"))
    result = compare(instance)
    assert result.success and NOT_MAPPED in said(instance, result)
    assert materialized(instance) == {}
    assert shop.value("SELECT count(*) FROM loyalty.findings") == 0
    found = checked(instance)
    assert {one.passed for one in found.values()} == {True}
    assert {one.description for one in found.values()} == {NOT_MAPPED}
    result = run(instance, "subscription_report_job")
    assert result.success and NOT_MAPPED in said(instance, result)
    assert not list(tmp_path.rglob("*.html")) and materialized(instance, SUBSCRIPTION_REPORT) == {}
    assert run(instance, "fix_subscriptions_job", "fix_subscriptions", dry_run=False).success


def test_every_sentence_is_green_where_nothing_is_wrong_and_red_or_yellow_by_its_class(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    SubscriptionShop(shop, "m1").change("payments", "lost", status="failed")
    SubscriptionShop(shop, "m1").change("orders", "lost", status="failed")
    shop.award()
    assert compare(instance).success
    found = checked(instance)
    names = {*(one.sentence for one in CLASSES), "every_class_was_compared", "every_merchant_was_compared_lately"}
    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(names, True)
    assert found["nothing_is_captured_twice"].description == "Nothing is wrong."
    # Of each severity one.
    again = SubscriptionShop(shop, "m1")
    again.payment("again", 30, at=PAST + timedelta(minutes=1), order="o")
    again.payment("odd", at=PAST, status="chargeback", customer_id="bob")
    assert compare(instance, full=False).success
    found = checked(instance)
    wrong = {name: one.severity for name, one in found.items() if not one.passed}
    assert wrong == {"nothing_is_captured_twice": ERROR, "every_status_is_known": WARN}
    red = found["nothing_is_captured_twice"]
    assert red.description and red.description.startswith("1 findings at 1 merchants since ")
    assert red.description.endswith(" UTC, 30.00 EUR.")
    assert red.metadata["amount at risk EUR"].value == 30.0
    largest = red.metadata["largest"]
    assert isinstance(largest, dg.TableMetadataValue)
    (row,) = largest.records
    assert (row.data["policy"], row.data["age"], row.data["object_id"]) == ("P", "0 min", "again")


def test_a_class_whose_relation_is_missing_is_a_warning_of_its_own(shop: Shop, instance: dg.DagsterInstance) -> None:
    mapped(shop, without=("subscriptions", "fixes"))
    assert compare(instance).success
    found = checked(instance)["every_class_was_compared"]
    assert (found.passed, found.severity) == (False, WARN)


def test_a_merchant_that_was_compared_long_ago_is_late(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert compare(instance).success
    shop.run(
        "UPDATE loyalty.merchant_jobs SET succeeded_at = now() - interval '27 hours' "
        "WHERE job = 'subscription_mismatches' AND merchant_id = 'm2'"
    )
    # New since the last night, which took all: the next one takes it, too.
    SubscriptionShop(shop, "new").merchant()
    found = checked(instance)["every_merchant_was_compared_lately"]
    assert (found.passed, found.severity) == (False, ERROR)
    assert found.description == "1 merchants were not compared in full within 26 hours, or can't be: m2."
    shop.run("UPDATE loyalty.merchant_jobs SET succeeded_at = now() - interval '27 hours'")
    shop.run("UPDATE loyalty.source_mapping SET applied_at = now() - interval '27 hours'")
    assert checked(instance)["every_merchant_was_compared_lately"].metadata["merchants"].value == 3


def test_fixes_are_a_dry_run_until_somebody_says_otherwise_and_limits_are_said(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    def fixed(**config: Any) -> tuple[str, int]:
        result = run(instance, "fix_subscriptions_job", "fix_subscriptions", **config)
        assert result.success
        made = "SELECT count(*) FROM sample_shop.subscriptions WHERE customer_id = 'bob'"
        return said(instance, result), shop.value(made)

    assert compare(instance).success
    text, subscriptions = fixed()
    assert "m1: 1 fixes would be applied" in text and subscriptions == 0
    text, subscriptions = fixed(dry_run=False, max_fixes=0)
    assert "It stopped at max_fixes 0" in text and subscriptions == 0
    assert fixed(dry_run=False, merchants=["m2"])[1] == 0
    assert fixed(dry_run=False)[1] == 1
    assert fixed(dry_run=False)[1] == 1
    assert checked(instance)["every_paid_plan_has_its_subscription"].passed


def test_a_merchant_whose_fixes_fail_fails_the_run_and_the_others_are_done(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    other = SubscriptionShop(shop, "m2")
    other.customer("bob")
    other.order("lost", at=PAST, customer="bob", currency="JPY")
    other.payment("lost", at=PAST, order="lost", currency="JPY")
    shop.award()
    assert compare(instance).success
    shop.run(
        "CREATE FUNCTION loyalty.refuse_m1() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.merchant_id = 'm1' THEN RAISE EXCEPTION 'not today'; END IF; RETURN NEW; END $$"
    )
    shop.run(
        "CREATE TRIGGER refuse BEFORE INSERT ON loyalty.fix_plans FOR EACH ROW EXECUTE FUNCTION loyalty.refuse_m1()"
    )
    result = run(instance, "fix_subscriptions_job", "fix_subscriptions", dry_run=False)
    failure = result.failure_data_for_node("fix_subscriptions")
    assert failure and "1 merchant failed, all others are done: m1:" in failure.error_display_string
    assert shop.rows("SELECT merchant_id FROM sample_shop.subscriptions WHERE customer_id = 'bob'") == [("m2",)]


def test_the_schedules_compare_when_something_is_due_and_everything_by_night(
    shop: Shop, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)

    def tick(name: str):
        with dg.build_schedule_context(made, resources={"ledger": LedgerDatabase(url=database_url)}) as context:
            return defs.resolve_schedule_def(name).evaluate_tick(context)

    def config(name: str) -> Any:
        (request,) = tick(name).run_requests or []
        return request.run_config

    def step(is_full: bool) -> Any:
        return {"ops": {"subscription_mismatches": {"config": {"full": is_full, "everybody": True}}}}

    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        assert tick("subscriptions_nightly_schedule").skip_message == "There are no merchants yet."
        made.add_dynamic_partitions("merchant", ["m1"])
        shop.run("DELETE FROM loyalty.subscription_inbox")
        nothing = "Nothing changed since the last comparison, and nothing is due for a look."
        assert tick("subscriptions_schedule").skip_message == nothing
        assert config("subscriptions_nightly_schedule") == step(True)
        look = "INSERT INTO loyalty.subscription_looks VALUES ('m1', 'payments', 'p', now() + interval '1 hour')"
        shop.run(look)
        assert tick("subscriptions_schedule").skip_message == nothing
        shop.run("UPDATE loyalty.subscription_looks SET due_at = now()")
        assert config("subscriptions_schedule") == step(False)
        shop.run("DELETE FROM loyalty.subscription_looks")
        SubscriptionShop(shop, "m1").payment("new")
        assert config("subscriptions_schedule") == step(False)
        assert config("fix_subscriptions_schedule") == {"ops": {"fix_subscriptions": {"config": {"dry_run": False}}}}
        assert tick("subscription_report_schedule").run_requests
        running = made.create_run_for_job(defs.resolve_job_def("subscriptions_job"), status=dg.DagsterRunStatus.STARTED)
        in_flight = f"Comparison {running.run_id} is not finished yet."
        assert tick("subscriptions_schedule").skip_message == in_flight
        # It waits by itself: a night is not left out.
        assert config("subscriptions_nightly_schedule") == step(True)
        made.report_run_canceled(running)
        # Where the shop is polled, nobody knows before it was looked.
        mapped(shop, capture="poll")
        shop.run("DELETE FROM loyalty.subscription_inbox")
        assert config("subscriptions_schedule") == step(False)
        mapped(shop, without=("payments", "subscriptions", "plans", "fixes"))
        for name in ("subscriptions_schedule", "subscriptions_nightly_schedule", "fix_subscriptions_schedule",
                     "subscription_report_schedule"):  # fmt: skip
            assert tick(name).skip_message == NOT_MAPPED


def test_the_statements_of_the_runbook_run(shop: Shop) -> None:
    text = (Path(__file__).parents[2] / "docs" / "runbooks" / "subscriptions.md").read_text()
    statements = re.findall(r"```sql\n(.*?);\n```", text, re.DOTALL)
    assert len(statements) > 5
    for statement in statements:
        assert shop.rows(statement) == []
