"""The proof on a real Dagster instance: per merchant, by the hour and by the night, and its checks."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.integrity import PROOFS
from loyalty_pipelines.schedules import RANGE_END, RANGE_START
from tests.integrity import corrupt, proved
from tests.shop import Shop

ERROR = dg.AssetCheckSeverity.ERROR


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database: two merchants with ten points each."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    shop.program(point_value_amount="0.5")
    shop.merchant("m2", currency="JPY", point_value_amount="2")
    for merchant, currency in (("m1", "EUR"), ("m2", "JPY")):
        shop.order("1", 10, merchant=merchant, currency=currency)
    shop.award()
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("merchant", ["m1", "m2"])
        yield made


def prove(
    instance: dg.DagsterInstance, first: str = "m1", last: str = "m2", **config: bool
) -> dg.ExecuteInProcessResult:
    """Run the proof of these merchants in one run."""
    return defs.resolve_job_def("integrity_job").execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={RANGE_START: first, RANGE_END: last},
        run_config={"ops": {"balance_integrity": {"config": config}}},
    )


def materialized(instance: dg.DagsterInstance) -> dict[str, dict[str, object]]:
    """Return the newest metadata of each merchant."""
    records = instance.fetch_materializations(BALANCE_INTEGRITY, limit=100).records
    return {
        str(record.partition_key): {name: one.value for name, one in record.asset_materialization.metadata.items()}
        for record in reversed(records)
        if record.asset_materialization
    }


def checked(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks; the run fails exactly when an error was found."""
    result = defs.resolve_job_def("integrity_checks_job").execute_in_process(instance=instance, raise_on_error=False)
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert result.success == (not [one for one in found.values() if not one.passed and one.severity == ERROR])
    return found


def test_each_merchant_shows_what_was_proved_and_what_is_wrong(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.run("UPDATE loyalty.accounts SET balance = balance + 4 WHERE merchant_id = 'm2'")
    assert prove(instance).success
    shown = materialized(instance)
    assert shown["m1"] == {
        "accounts": 1, "entries": 1, "findings": 0, "points at risk": 0, "classes": "none",
        "proof": "full",
    }  # fmt: skip
    assert (shown["m2"]["findings"], shown["m2"]["points at risk"], shown["m2"]["amount at risk JPY"]) == (1, 4, 8.0)
    shop.run("UPDATE loyalty.accounts SET balance = balance - 4 WHERE merchant_id = 'm2'")
    assert prove(instance).success
    shown = materialized(instance)
    assert (shown["m2"]["findings"], shown["m2"]["points at risk"], shown["m2"]["amount at risk JPY"]) == (0, 0, 0.0)


def test_what_one_account_costs_is_its_largest_finding_not_their_sum(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("2", 100)
    shop.order("3", 30, customer="bob")
    shop.award()
    corrupt(
        shop,
        "DELETE FROM loyalty.ledger_entries WHERE merchant_id = 'm1' AND points = 100",
        "UPDATE loyalty.accounts SET balance = balance - 7 WHERE customer_id = 'bob'",
    )
    assert prove(instance).success
    shown = materialized(instance)["m1"]
    # Two findings of ann's account, one of her order, one of bob's account.
    assert (shown["findings"], shown["points at risk"], shown["amount at risk EUR"]) == (4, 207, 103.5)


def test_a_proof_of_one_merchant_leaves_the_others(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.run("UPDATE loyalty.accounts SET balance = balance + 4")
    assert prove(instance, "m1", "m1").success
    assert list(materialized(instance)) == ["m1"]
    assert shop.rows("SELECT DISTINCT merchant_id FROM loyalty.findings") == [("m1",)]


def test_an_hour_in_which_a_merchant_did_nothing_is_no_event(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert prove(instance, everybody=True).success
    # No transaction of another test's database is older than this proof.
    shop.run("UPDATE loyalty.integrity_marks SET verified_until = pg_current_xact_id()")
    shop.order("2", 10, merchant="m2", currency="JPY")
    shop.award()
    assert prove(instance, full=False, everybody=True).success
    shown = materialized(instance)
    assert (shown["m1"]["proof"], shown["m2"]["proof"], shown["m2"]["entries"]) == ("full", "new entries", 1)


def test_everybody_includes_merchants_without_a_partition(shop: Shop, instance: dg.DagsterInstance) -> None:
    instance.delete_dynamic_partition("merchant", "m2")
    shop.run("UPDATE loyalty.accounts SET balance = balance + 4 WHERE merchant_id = 'm2'")
    assert prove(instance, "m1", "m1", everybody=True).success
    assert shop.rows("SELECT merchant_id FROM loyalty.findings") == [("m2",)]
    assert checked(instance)["balances_equal_the_sum_of_entries"].passed is False


def test_a_merchant_that_cannot_be_proved_fails_the_run_and_the_others_are_shown(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    corrupt(
        shop,
        "ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_seq_starts_at_one",
        "UPDATE loyalty.accounts SET next_seq = -9223372036854775808 WHERE merchant_id = 'm1'",
    )
    result = prove(instance, everybody=True)
    assert not result.success
    failure = result.failure_data_for_node("balance_integrity")
    assert failure and "1 merchant failed, all others are done: m1:" in failure.error_display_string
    assert list(materialized(instance)) == ["m2"]
    late = checked(instance)["every_merchant_was_proved_lately"]
    assert (late.passed, late.severity, late.metadata["merchants"].value) == (False, ERROR, 1)


def test_every_sentence_is_green_when_nothing_is_wrong(shop: Shop, instance: dg.DagsterInstance) -> None:
    proved(shop)
    found = checked(instance)
    assert {name: one.passed for name, one in found.items()} == {
        **{proof.sentence: True for proof in PROOFS}, "every_merchant_was_proved_lately": True,
    }  # fmt: skip
    assert found["no_order_is_awarded_twice"].description == "Nothing is wrong."


def test_a_red_sentence_shows_how_many_how_much_since_when_and_the_ten_largest(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    for number in range(12):
        shop.order(f"c{number}", 10, customer=f"c{number}")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET balance = balance + account_id WHERE merchant_id = 'm1' AND account_id > 2")
    shop.run("UPDATE loyalty.accounts SET balance = balance - 3 WHERE merchant_id = 'm2'")
    proved(shop)
    found = checked(instance)
    red = found["balances_equal_the_sum_of_entries"]
    assert [name for name, one in found.items() if not one.passed] == ["balances_equal_the_sum_of_entries"]
    too_many = shop.value("SELECT sum(account_id) FROM loyalty.accounts WHERE merchant_id = 'm1' AND account_id > 2")
    assert red.severity == ERROR
    values = {name: one.value for name, one in red.metadata.items()}
    assert (values["findings"], values["merchants"]) == (13, 2)
    assert (values["points too many"], values["points too few"]) == (too_many, 3)
    assert (values["amount at risk EUR"], values["amount at risk JPY"]) == (float(too_many) / 2, 6.0)
    largest = red.metadata["largest"]
    assert isinstance(largest, dg.TableMetadataValue)
    points = [int(str(record.data["points_difference"])) for record in largest.records]
    assert (len(points), points) == (10, sorted(points, reverse=True))
    assert red.description and "13 findings at 2 merchants since " in red.description


def test_points_of_one_customer_too_many_and_of_another_one_too_few_are_both_shown(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.order("2", 100, customer="bob")
    shop.award()
    for customer, change in (("ann", 50), ("bob", -50)):
        shop.run(
            "UPDATE loyalty.accounts SET balance = balance + :change WHERE merchant_id = 'm1' AND customer_id = :one",
            change=change,
            one=customer,
        )
    proved(shop)
    red = checked(instance)["balances_equal_the_sum_of_entries"]
    values = {name: one.value for name, one in red.metadata.items()}
    assert (values["points too many"], values["points too few"]) == (50, 50)
    by_merchant = red.metadata["by merchant"]
    assert isinstance(by_merchant, dg.TableMetadataValue)
    (row,) = by_merchant.records
    assert (row.data["points_too_many"], row.data["points_too_few"]) == (50, 50)


def test_money_that_is_at_risk_no_more_is_plotted_as_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    for change, amount in (("+ 4", 2.0), ("- 4", 0.0)):
        shop.run(f"UPDATE loyalty.accounts SET balance = balance {change} WHERE merchant_id = 'm1'")
        proved(shop)
        found = checked(instance)
        for sentence, expected in (("balances_equal_the_sum_of_entries", amount), ("no_order_is_awarded_twice", 0.0)):
            assert found[sentence].metadata["amount at risk EUR"].value == expected


def test_money_of_a_merchant_whose_currency_is_not_known_is_no_less(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.run("DELETE FROM sample_shop.merchants WHERE id = 'm1'")
    shop.run("UPDATE loyalty.accounts SET balance = balance + 4 WHERE merchant_id = 'm1'")
    proved(shop)
    red = checked(instance)["balances_equal_the_sum_of_entries"]
    assert red.description and red.description.endswith(", 4 points, 2.00 of unknown currency.")
    assert red.metadata["amount at risk of unknown currency"].value == 2.0


def test_points_without_a_value_are_not_said_to_cost_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.program(point_value_amount=0)
    shop.run("UPDATE loyalty.accounts SET balance = balance + 4 WHERE merchant_id = 'm1'")
    proved(shop)
    red = checked(instance)["balances_equal_the_sum_of_entries"]
    assert red.description and red.description.endswith(", 4 points, whose value no programme says.")


def test_a_date_that_is_too_late_is_a_warning(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.program(points_expiration_days=30)
    shop.run("INSERT INTO loyalty.expiry_terms VALUES ('m1', 30, 'Europe/Luxembourg', true)")
    shop.run(
        "UPDATE loyalty.accounts SET expires_at = loyalty.expiry_instant(last_activity_at, 31, 'Europe/Luxembourg') "
        "WHERE merchant_id = 'm1'"
    )
    proved(shop)
    found = checked(instance)["expiry_dates_follow_the_rule"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_the_schedules_prove_everybody_new_entries_by_the_hour_and_all_by_the_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/unused")

    def tick(name: str):
        with dg.build_schedule_context(instance) as context:
            return defs.resolve_schedule_def(name).evaluate_tick(context)

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert tick("integrity_schedule").skip_message == "There are no merchants yet."
        instance.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])
        for name, is_full in (("integrity_schedule", False), ("integrity_nightly_schedule", True)):
            (request,) = tick(name).run_requests or []
            assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("m1", "m3")
            config = {"full": is_full, "everybody": True}
            assert request.run_config == {"ops": {"balance_integrity": {"config": config}}}
        run = instance.create_run_for_job(defs.resolve_job_def("integrity_job"), status=dg.DagsterRunStatus.STARTED)
        assert tick("integrity_schedule").skip_message == f"Proof {run.run_id} is not finished yet."
        # It waits for the hour's proof by itself: a night is not left out for it.
        assert tick("integrity_nightly_schedule").run_requests
