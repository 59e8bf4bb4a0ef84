"""The checks of expiry, green and red, on a real Dagster instance; and their queries."""

from collections.abc import Iterator

import dagster as dg
import pytest

from loyalty_pipelines.db import sources
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.expiry import Limits
from loyalty_pipelines.domain.expiry_undo import Undo
from tests.expiry import Nights
from tests.shop import Shop

ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_AT = "2025-01-18T02:00:00+01:00"
DUE_AT = "2025-02-01T02:00:00+01:00"


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days, by a programme that was set long ago."""
    shop.program(points_expiration_days=30)
    set_earlier(shop)
    return Nights(shop)


def set_earlier(shop: Shop, interval: str = "3 days") -> None:
    """Have all programmes set so long ago."""
    shop.run("UPDATE loyalty.programs SET created_at = now() - CAST(:interval AS interval)", interval=interval)


def later(shop: Shop, interval: str) -> None:
    """Have all runs that long ago."""
    shop.run(
        "UPDATE loyalty.expiry_runs SET as_of = as_of - CAST(:i AS interval), started_at = started_at - "
        "CAST(:i AS interval), finished_at = finished_at - CAST(:i AS interval)",
        i=interval,
    )


def expired(nights: Nights, *customers: str) -> None:
    """Tell customers of 100 points that are due at DUE_AT, and let them expire then."""
    for customer in customers:
        nights.account(customer, active_at=ACTIVE_AT)
    nights.run(WARNED_AT)
    nights.deliver()
    assert nights.run(DUE_AT).accounts_expired == len(customers)


def checked(instance: dg.DagsterInstance, **config: dict) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks of expiry and return them by name; the run fails exactly when one is red."""
    result = defs.resolve_job_def("expiry_checks_job").execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"ops": {f"loyalty__expired_points_{name}": {"config": one} for name, one in config.items()}},
    )
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert set(found) == {"expiry_plan_looks_normal", "expiry_succeeded_lately", "nobody_expired_unwarned"}
    assert {one.severity for one in found.values()} == {dg.AssetCheckSeverity.ERROR}
    assert result.success == all(one.passed for one in found.values())
    return found


def records(found: dg.AssetCheckEvaluation) -> list[dict]:
    """Return the rows of a check's table of merchants."""
    table = found.metadata["merchants"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(one.data) for one in table.records]


def test_every_check_is_green_after_a_night_in_which_warned_points_went(
    nights: Nights, instance: dg.DagsterInstance
) -> None:
    expired(nights, "ann", "bea")
    nights.run()
    assert [one.passed for one in checked(instance).values()] == [True, True, True]


# --- expiry_plan_looks_normal ---


@pytest.fixture
def stopped(nights: Nights, shop: Shop) -> Nights:
    """Merchant m1 is stopped with 2 accounts, by the second of two nights; m2 is not."""
    shop.merchant("m2", points_expiration_days=30)
    for customer in ("ann", "bea"):
        nights.account(customer, active_at=ACTIVE_AT)
    nights.run(WARNED_AT)
    nights.deliver()
    few = Limits(few_accounts=1)
    for _ in range(2):
        later(shop, "1 hour")
        done = nights.run_all(DUE_AT, limits=few)
        assert [(one.merchant_id, one.is_stopped) for one in done if one.is_stopped] == [("m1", True)]
    return nights


def test_a_stopped_merchant_turns_the_check_red_with_numbers_and_command(
    stopped: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    found = checked(instance)["expiry_plan_looks_normal"]
    assert not found.passed
    assert "m1: 2 accounts with 200 points are due, more than the 1" in (found.description or "")
    (row,) = records(found)
    first, newest = shop.rows("SELECT run_id, started_at FROM loyalty.expiry_runs WHERE is_stopped ORDER BY started_at")
    assert "loyalty expire m1 --accept 2" in str(row.pop("reason"))
    assert row == {
        "merchant_id": "m1",
        "stopped_at": first.started_at.isoformat(timespec="seconds"),
        "accounts_due": 2,
        "points_due": 200,
        "run_id": newest.run_id,
    }
    assert (found.metadata["stopped"].value, found.metadata["points due"].value) == (1, 200)


def test_a_stop_is_over_when_a_later_run_went_through_and_not_by_one_that_did_not_end(
    stopped: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.run("INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor) VALUES ('m1', 'killed', now(), 'x')")
    assert not checked(instance)["expiry_plan_looks_normal"].passed
    shop.run("DELETE FROM loyalty.expiry_runs WHERE run_id = 'killed'")
    stopped.run(DUE_AT, limits=Limits(accepted_accounts=2))
    assert checked(instance)["expiry_plan_looks_normal"].passed


def test_a_merchant_that_the_shop_no_longer_lists_is_not_red_for_ever(
    stopped: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.run("DELETE FROM sample_shop.orders")
    shop.run("DELETE FROM sample_shop.merchants WHERE id = 'm1'")
    assert checked(instance)["expiry_plan_looks_normal"].passed


# --- expiry_succeeded_lately ---


def test_a_merchant_without_a_success_for_26_hours_is_named_with_its_last_one(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.merchant("m2", points_expiration_days=30)
    set_earlier(shop)
    found = checked(instance)["expiry_succeeded_lately"]
    assert not found.passed
    assert found.description == "Expiry of 2 merchants has not succeeded for 26 hours: m1 (never yet), m2 (never yet)."
    nights.run_all()
    assert checked(instance)["expiry_succeeded_lately"].passed
    later(shop, "25 hours 59 minutes")
    assert checked(instance)["expiry_succeeded_lately"].passed
    later(shop, "2 minutes")
    nights.run(merchant="m2")
    found = checked(instance)["expiry_succeeded_lately"]
    last = shop.value("SELECT max(finished_at) FROM loyalty.expiry_runs WHERE merchant_id = 'm1'")
    assert records(found) == [
        {"merchant_id": "m1", "succeeded_at": last.isoformat(timespec="seconds"), "is_stopped": False}
    ]
    assert f"m1 (since {last:%Y-%m-%d %H:%M} UTC)" in (found.description or "")
    assert checked(instance, expiry_succeeded_lately={"max_hours": 27})["expiry_succeeded_lately"].passed


@pytest.mark.parametrize(
    "rules", [{"points_expiration_days": None}, {"points_expiration_days": 0}, {"is_active": False}]
)
def test_a_merchant_whose_points_never_expire_is_not_late(
    rules: dict, nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.run()
    shop.merchant("m2", **{"points_expiration_days": 30, **rules})
    set_earlier(shop)
    assert checked(instance)["expiry_succeeded_lately"].passed


def test_a_programme_that_was_set_today_is_not_late_but_a_new_version_of_an_old_one_is(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    set_earlier(shop, "25 hours")
    assert checked(instance)["expiry_succeeded_lately"].passed
    set_earlier(shop, "27 hours")
    shop.program(points_expiration_days=60)
    assert not checked(instance)["expiry_succeeded_lately"].passed


def test_a_run_that_was_stopped_or_did_not_end_or_looked_from_the_past_is_no_success(
    stopped: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    set_earlier(shop)
    rows = {str(row["merchant_id"]): row for row in records(checked(instance)["expiry_succeeded_lately"])}
    assert (rows["m1"]["is_stopped"], rows["m2"]["is_stopped"]) == (True, False), "both nights were replays"
    stopped.run_all()
    shop.run("UPDATE loyalty.expiry_runs SET finished_at = NULL WHERE merchant_id = 'm2' AND as_of > '2026-01-01'")
    shop.run("UPDATE loyalty.expiry_runs SET is_stopped = true WHERE merchant_id = 'm1' AND as_of > '2026-01-01'")
    rows = {str(row["merchant_id"]): row["is_stopped"] for row in records(checked(instance)["expiry_succeeded_lately"])}
    assert rows == {"m1": True, "m2": False}


def test_a_run_that_is_at_work_does_not_hide_the_success_before_it(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.run()
    shop.run("INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor) VALUES ('m1', 'now', now(), 'x')")
    assert checked(instance)["expiry_succeeded_lately"].passed


def test_a_run_that_was_killed_after_its_last_page_is_finished_by_its_retry(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.run_all(run_id="night")
    shop.run("UPDATE loyalty.expiry_runs SET finished_at = NULL, accounts_forecast = NULL")
    assert not checked(instance)["expiry_succeeded_lately"].passed
    nights.run_all(run_id="night")
    assert checked(instance)["expiry_succeeded_lately"].passed
    assert shop.value("SELECT accounts_forecast FROM loyalty.expiry_runs") == 0


def test_behind_a_withdrawn_mapping_the_checks_of_runs_fail_instead_of_finding_nobody(
    stopped: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    result = defs.resolve_job_def("expiry_checks_job").execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert [one.check_name for one in result.get_asset_check_evaluations()] == ["nobody_expired_unwarned"]


# --- nobody_expired_unwarned ---


@pytest.mark.parametrize("status", ["pending", "failed", "void"])
def test_points_that_went_without_a_delivered_warning_turn_the_check_red(
    status: str, nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    expired(nights, "ann", "bea")
    shop.run(
        "UPDATE loyalty.notifications SET status = :status, settled_at = CASE WHEN :status <> 'pending' THEN now() END "
        "WHERE customer_id = 'ann' AND template = 'loyalty_points_expiring'",
        status=status,
    )
    found = checked(instance)["nobody_expired_unwarned"]
    assert not found.passed
    run = shop.value("SELECT DISTINCT run_id FROM loyalty.ledger_entries WHERE kind = 'expired'")
    assert records(found) == [{"merchant_id": "m1", "accounts": 1, "points": 100, "run_id": run}]
    assert (found.metadata["accounts"].value, found.metadata["points"].value) == (1, 100)


def test_a_run_that_required_no_warning_shows_up_until_it_is_undone(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    nights.run("2025-01-02T02:00:00+01:00")
    done = nights.run(DUE_AT, is_warning_required=False)
    assert done.run_id and done.accounts_expired == 1
    found = checked(instance)["nobody_expired_unwarned"]
    assert (found.passed, [row["run_id"] for row in records(found)]) == (False, [done.run_id])
    undo_run(shop.engine, Undo(run_id=done.run_id, reason="ticket 1", actor="eve"))
    assert checked(instance)["nobody_expired_unwarned"].passed


def test_customers_whom_no_mail_reaches_are_counted_apart(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    expired(nights, "ann", "bea")
    shop.run(
        "UPDATE loyalty.notifications SET status = 'parked' "
        "WHERE customer_id = 'ann' AND template = 'loyalty_points_expiring'"
    )
    found = checked(instance)["nobody_expired_unwarned"]
    assert found.passed
    assert found.metadata["accounts that could not be reached by mail"].value == 1
    assert found.description == (
        "0 accounts of 0 merchants expired unwarned in the last 7 days; 1 more could not be reached by mail."
    )


def test_a_warning_of_another_date_is_none(nights: Nights, shop: Shop, instance: dg.DagsterInstance) -> None:
    expired(nights, "ann")
    shop.run(
        "UPDATE loyalty.notifications SET dedupe_key = replace(dedupe_key, '2025-02-01', '2025-01-31'), "
        'payload = payload || \'{"expires_at": "2025-01-30T23:00:00+00:00"}\' '
        "WHERE template = 'loyalty_points_expiring'"
    )
    assert not checked(instance)["nobody_expired_unwarned"].passed


def test_a_time_zone_that_changed_since_does_not_turn_the_check_red(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    expired(nights, "ann")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles'")
    nights.run()
    assert shop.value("SELECT timezone FROM loyalty.expiry_terms") == "America/Los_Angeles"
    assert checked(instance)["nobody_expired_unwarned"].passed


def test_what_expired_long_ago_is_not_looked_at(nights: Nights, shop: Shop, instance: dg.DagsterInstance) -> None:
    expired(nights, "ann")
    shop.run("DELETE FROM loyalty.notifications WHERE template = 'loyalty_points_expiring'")
    shop.run("ALTER TABLE loyalty.ledger_entries DISABLE TRIGGER ALL")
    shop.run("UPDATE loyalty.ledger_entries SET recorded_at = now() - interval '7 days 1 hour'")
    assert checked(instance)["nobody_expired_unwarned"].passed
    assert not checked(instance, nobody_expired_unwarned={"days": 8})["nobody_expired_unwarned"].passed


def test_two_accounts_whose_numbers_begin_alike_are_told_apart(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    expired(nights, *(f"c{n}" for n in range(12)))
    first = shop.value("SELECT min(account_id) FROM loyalty.accounts")
    assert first < 10
    shop.run("DELETE FROM loyalty.notifications WHERE dedupe_key LIKE :key", key=f"expiring/{first}/%")
    found = checked(instance)["nobody_expired_unwarned"]
    assert (found.passed, found.metadata["accounts"].value) == (False, 1)
