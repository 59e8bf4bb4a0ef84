"""The sensor, the job and the checks of mails, on a real, ephemeral Dagster instance and a real mail server."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.assets.notifications import SENT_NOTIFICATIONS
from loyalty_pipelines.db import notifications, sources
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.mail_settings import MailSettingsError, mail_settings
from loyalty_pipelines.processes import demo_mail_environment, mail_environment
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.mailer import Mailer
from tests.mail_server import PASSWORD, USER, MailServer, closed_port, mail_server
from tests.outbox import SENDER, Outbox
from tests.shop import Shop

JOB = "send_notifications_job"


@pytest.fixture
def outbox(shop: Shop) -> Outbox:
    return Outbox(shop)


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def mta(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """A mail server that the environment names."""
    with mail_server() as running:
        monkeypatch.setenv("LOYALTY_MAIL_URL", running.url())
        monkeypatch.setenv("LOYALTY_MAIL_FROM", SENDER)
        monkeypatch.setenv("LOYALTY_MAIL_PER_MINUTE", "1000000")
        yield running


def run_job(instance: dg.DagsterInstance, name: str = JOB, **options) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False, **options)


def tick(instance: dg.DagsterInstance, database_url: str):
    """Evaluate one tick of the sensor."""
    resources = {"ledger": LedgerDatabase(url=database_url), "mailer": Mailer()}
    with dg.build_sensor_context(instance, resources=resources) as context:
        return defs.resolve_sensor_def("pending_notifications_sensor").evaluate_tick(context)


def newest(instance: dg.DagsterInstance) -> dict[str, object]:
    """Return the metadata of the newest materialization."""
    record = instance.fetch_materializations(SENT_NOTIFICATIONS, limit=1).records[0]
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def check(instance: dg.DagsterInstance, name: str) -> tuple[dg.AssetCheckEvaluation, bool]:
    """Run the checks' job; return one check and whether the run succeeded."""
    result = run_job(instance, "notification_checks_job")
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == name]
    return found, result.success


def everything_written(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Return all that Dagster keeps of a run: its events with their metadata, its configuration and tags."""
    run = instance.get_run_by_id(result.run_id)
    assert run
    records = instance.all_logs(result.run_id)
    return "\n".join([repr(run), str(run.run_config), *(entry.to_json() for entry in records)])


def test_what_is_due_starts_a_run_that_sends_it(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, database_url: str
) -> None:
    assert tick(instance, database_url).skip_message == "Nothing waits."
    outbox.add()
    outbox.add("bea")
    outbox.customer("bea", email=None)
    (request,) = tick(instance, database_url).run_requests or []
    assert request.run_key is None
    assert run_job(instance).success
    assert mta.recipients == ["ann@example.com"]
    found = newest(instance)
    assert (found["sent"], found["parked"], found["failed"], found["merchants"]) == (1, 1, 0, 1)
    (row,) = found["by merchant"].records  # type: ignore[attr-defined]
    assert (row.data["merchant"], row.data["sent"]) == ("m1", 1)
    assert tick(instance, database_url).skip_message == "Nothing waits."


def test_a_second_run_and_one_beside_another_send_nothing_again(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, database_url: str
) -> None:
    outbox.add()
    run = instance.create_run_for_job(defs.resolve_job_def(JOB), status=dg.DagsterRunStatus.STARTED)
    assert tick(instance, database_url).skip_message == f"Run {run.run_id} is at work already."
    assert run_job(instance).success
    assert run_job(instance).success
    assert len(mta.mails) == 1


def test_without_a_mail_server_the_sensor_says_what_to_set_and_mails_wait(
    outbox: Outbox, instance: dg.DagsterInstance, database_url: str
) -> None:
    outbox.add()
    assert "LOYALTY_MAIL_URL is not set, so mails wait: set it to" in (tick(instance, database_url).skip_message or "")
    assert outbox.states() == {"ann": "pending"}
    assert check(instance, "no_mail_waits_long")[1]


def test_before_a_shop_is_mapped_the_sensor_waits_and_says_for_what(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, database_url: str
) -> None:
    outbox.add()
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert "withdrawn" in (tick(instance, database_url).skip_message or "")
    assert not run_job(instance).success
    assert outbox.states() == {"ann": "pending"}


def test_a_mail_setting_that_cannot_be_used_is_an_error_and_no_skip(
    outbox: Outbox, instance: dg.DagsterInstance, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"http://{USER}:{PASSWORD}@mail.example.com")
    with pytest.raises(MailSettingsError, match="LOYALTY_MAIL_URL begins with none"):
        tick(instance, database_url)
    result = run_job(instance)
    failure = result.failure_data_for_node("loyalty__sent_notifications")
    assert failure and "LOYALTY_MAIL_URL begins with none" in failure.error_display_string
    assert PASSWORD not in everything_written(instance, result)


def test_a_server_that_cannot_be_reached_fails_the_run_with_what_to_correct_and_the_next_waits_a_minute(
    outbox: Outbox,
    mta: MailServer,
    instance: dg.DagsterInstance,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox.add()
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"smtp://{USER}:{PASSWORD}@localhost:{closed_port()}")
    result = run_job(instance)
    assert not result.success
    failure = result.failure_data_for_node("loyalty__sent_notifications")
    assert failure and "can't be reached (Connection refused)" in failure.error_display_string
    assert newest(instance)["sent"] == 0
    assert "failed less than a minute ago" in (tick(instance, database_url).skip_message or "")
    assert outbox.mail(1).attempts == 0


def test_a_merchant_that_is_set_aside_fails_the_run_by_name_and_the_others_have_their_mails(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    outbox.many(12)
    shop.merchant("m2")
    outbox.add("bob", merchant="m2")
    mta.rules["data"] = lambda address: "554 5.7.1 spam" if address.startswith("c") else None
    result = run_job(instance)
    assert not result.success
    failure = result.failure_data_for_node("loyalty__sent_notifications")
    assert failure and "m1: The mail server localhost:" in failure.error_display_string
    assert (newest(instance)["sent"], newest(instance)["failed"]) == (1, 10)


def test_a_mail_that_is_put_off_is_no_run_that_fails(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, database_url: str
) -> None:
    number = outbox.add()
    mta.refuse("data", "451 later")
    config = {"ops": {"loyalty__sent_notifications": {"config": {"max_retries": 1, "first_wait_seconds": 7}}}}
    assert run_job(instance, run_config=config).success
    assert newest(instance)["put off"] == 1
    assert tick(instance, database_url).skip_message == "Nothing waits."
    outbox.wait()
    assert run_job(instance, run_config=config).success
    assert (outbox.mail(number).status, newest(instance)["failed"]) == ("failed", 1)


def test_no_address_and_no_password_is_in_anything_that_dagster_keeps_or_the_outbox(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    outbox.many(4)
    for number, stage, answer in (
        (1, "rcpt", "550 5.1.1 <{}>: no such user {}"),
        (2, "data", "451 4.7.1 {} is busy"),
        (3, "data", "554 5.7.1 {} thinks this is spam"),
    ):
        address = f"c{number}@example.com"
        before = mta.rules.get(stage, lambda _: None)
        said = answer.replace("{}", address)
        mta.rules[stage] = lambda to, address=address, said=said, before=before: said if to == address else before(to)
    sent = run_job(instance)
    assert sent.success
    assert (newest(instance)["sent"], newest(instance)["parked"]) == (1, 1)
    mta.refuse("mail", f"550 5.7.1 {SENDER} may not send for c9@example.com")
    outbox.add("c9")
    refused = run_job(instance)
    assert not refused.success
    checked = run_job(instance, "notification_checks_job")
    written = "\n".join(everything_written(instance, one) for one in (sent, refused, checked))
    captured = capfd.readouterr()
    table = str(shop.rows("SELECT * FROM loyalty.notifications"))
    for text in (written, captured.out, captured.err, table):
        assert "@example.com" not in text
        assert PASSWORD not in text
    assert "550 5.1.1 <address>" in table


def test_the_settings_are_in_no_configuration_of_the_definitions() -> None:
    mailer = (defs.resources or {})["mailer"]
    assert isinstance(mailer, Mailer)
    assert set(mailer.model_dump()) == {"timeout_seconds"}


# --- the checks ---


def test_with_nothing_waiting_every_check_is_green(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    result = run_job(instance, "notification_checks_job")
    assert result.success
    assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()} == {
        "no_mail_waits_long": True,
        "few_mails_fail": True,
        "every_template_override_renders": True,
    }


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_mail_that_is_not_delivered_turns_the_check_yellow_after_an_hour_and_red_after_a_day(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, status: str
) -> None:
    outbox.add()
    if status == "failed":
        shop.run("UPDATE loyalty.notifications SET status = 'failed', settled_at = now()")
    seen = []
    for age in ("59 minutes", "61 minutes", "25 hours"):
        shop.run("UPDATE loyalty.notifications SET waits_since = now() - CAST(:age AS interval)", age=age)
        found, is_success = check(instance, "no_mail_waits_long")
        seen.append((found.passed, found.severity.value, is_success, found.metadata[status].value))
    assert seen == [(True, "WARN", True, 1), (False, "WARN", True, 1), (False, "ERROR", False, 1)]


def test_where_nobody_sends_yet_an_old_mail_is_yellow_and_says_what_to_set(
    shop: Shop, outbox: Outbox, instance: dg.DagsterInstance
) -> None:
    outbox.add()
    shop.run("UPDATE loyalty.notifications SET waits_since = now() - interval '3 days'")
    found, is_success = check(instance, "no_mail_waits_long")
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.WARN, True)
    assert "LOYALTY_MAIL_URL is not set" in (found.description or "")


def test_where_the_settings_cannot_be_used_the_check_looks_all_the_same_and_says_what_to_correct(
    shop: Shop, outbox: Outbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add()
    shop.run("UPDATE loyalty.notifications SET waits_since = now() - interval '2 days'")
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"smtp://{USER}:{PASSWORD}@mail.example.com:587")
    found, is_success = check(instance, "no_mail_waits_long")
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert found.metadata["pending"].value == 1
    assert "1 mails wait, 0 have failed; " in (found.description or "")
    assert "LOYALTY_MAIL_FROM is not set" in (found.description or "")


def test_parked_sent_and_void_mails_are_not_waited_for(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    for customer, status in (("a", "parked"), ("b", "sent"), ("c", "void")):
        outbox.add(customer)
        shop.run(
            "UPDATE loyalty.notifications SET status = :status, settled_at = now(), waits_since = now() - "
            "interval '3 days' WHERE customer_id = :customer",
            status=status,
            customer=customer,
        )
    assert check(instance, "no_mail_waits_long")[0].passed


def test_many_refused_mails_turn_the_check_yellow_with_their_reasons(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    outbox.many(100)
    mta.refuse("data", "554 5.7.1 spam", times=5)
    assert run_job(instance).success
    assert check(instance, "few_mails_fail")[0].passed, "five of a hundred are 5 %"
    outbox.add("bea")
    mta.refuse("rcpt", "550 5.1.1 unknown")
    assert run_job(instance).success
    found, is_success = check(instance, "few_mails_fail")
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.WARN, True)
    assert (found.metadata["sent"].value, found.metadata["refused"].value) == (95, 6)
    rows = found.metadata["reasons"].value.records  # type: ignore[union-attr]
    assert [(row.data["status"], row.data["reason"], row.data["mails"]) for row in rows] == [
        ("failed", "554 5.7.1 spam", 5),
        ("parked", "550 5.1.1 unknown", 1),
    ]


@pytest.mark.parametrize(("refused", "is_green"), [(4, True), (5, False)])
def test_a_handful_of_refused_mails_is_no_sign_however_few_there_are(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, refused: int, is_green: bool
) -> None:
    outbox.many(refused)
    mta.refuse("data", "554 5.7.1 spam")
    assert run_job(instance).success
    found, _ = check(instance, "few_mails_fail")
    assert (found.passed, found.metadata["refused"].value) == (is_green, refused)


def test_what_somebody_gave_up_by_hand_is_neither_refused_nor_unreachable_whatever_the_reason_says(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    outbox.many(30)
    shop.run("UPDATE loyalty.notifications SET status = 'failed', settled_at = now()")
    with shop.engine.begin() as conn:
        assert notifications.park(conn, reason="550 told at the till") == 30
    found, _ = check(instance, "few_mails_fail")
    assert (found.passed, found.metadata["refused"].value, found.metadata["parked"].value) == (True, 0, 30)
    assert outbox.mail(1).last_error == "by hand: 550 told at the till"


def test_a_merchant_whose_customers_lost_their_addresses_turns_the_check_yellow(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    shop.merchant("m2")
    outbox.many(40, merchant="m2")
    assert run_job(instance).success
    outbox.many(41)
    shop.run("UPDATE sample_shop.customers SET email = NULL WHERE merchant_id = 'm1' AND id <> 'c1'")
    shop.run("UPDATE sample_shop.customers SET email = 'nobody' WHERE merchant_id = 'm1' AND id = 'c2'")
    assert run_job(instance).success
    found, is_success = check(instance, "few_mails_fail")
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.WARN, True)
    assert " at m1: 40 of 41: the customer has no address. Is customers.email of" in (found.description or "")
    rows = found.metadata["merchants mostly parked"].value.records  # type: ignore[union-attr]
    assert [dict(row.data) for row in rows] == [
        {"merchant_id": "m1", "mails": 41, "parked": 40, "reason": "the customer has no address"}
    ]


@pytest.mark.parametrize(
    ("mails", "without", "is_green"), [(19, 19, True), (20, 20, False), (40, 20, True), (40, 21, False)]
)
def test_unreachable_customers_are_a_sign_from_twenty_and_half_of_the_mails_on(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance, mails: int, without: int, is_green: bool
) -> None:
    outbox.many(mails)
    shop.run(
        "UPDATE sample_shop.customers SET email = NULL "
        "WHERE CAST(substr(id, 2) AS integer) <= CAST(:without AS integer)",
        without=without,
    )
    assert run_job(instance).success
    assert check(instance, "few_mails_fail")[0].passed is is_green
    shop.run("UPDATE loyalty.notifications SET settled_at = now() - interval '25 hours'")
    assert check(instance, "few_mails_fail")[0].passed


def test_customers_without_an_address_are_no_failures(
    outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    for customer in ("a", "b"):
        outbox.add(customer)
        outbox.customer(customer, email=None)
    assert run_job(instance).success
    found, _ = check(instance, "few_mails_fail")
    assert (found.passed, found.metadata["parked"].value) == (True, 2)


def test_what_failed_before_the_last_day_is_not_counted(
    shop: Shop, outbox: Outbox, mta: MailServer, instance: dg.DagsterInstance
) -> None:
    outbox.add()
    mta.refuse("data", "554 no")
    assert run_job(instance).success
    shop.run("UPDATE loyalty.notifications SET settled_at = now() - interval '25 hours'")
    assert check(instance, "few_mails_fail")[0].metadata["refused"].value == 0


def test_mails_of_the_private_database_go_to_a_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_HOME", str(tmp_path / "a home"))
    assert mail_settings(mail_environment()).folder == tmp_path / "a home" / "mails"
    monkeypatch.setenv("LOYALTY_MAIL_URL", "console:")
    assert mail_environment() == {}
    monkeypatch.setenv("LOYALTY_MAIL_PER_MINUTE", "1")
    demo = mail_settings({**os.environ, **demo_mail_environment()})
    assert (demo.folder, demo.per_minute) == (tmp_path / "a home" / "mails", None)
    monkeypatch.delenv("LOYALTY_MAIL_URL")
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://db.example.com/shop")
    assert mail_environment() == {}
