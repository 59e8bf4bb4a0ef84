"""What must hold while Dagster really runs: its sensor, its job, its workers, and what kills them."""

import dagster as dg
import pytest
from sqlalchemy import text

from loyalty_pipelines.embedded import start_server
from tests.acceptance.conftest import RunningDagster, wait_for
from tests.conftest import FAST_SETTINGS
from tests.webhook import TOKEN

pytestmark = pytest.mark.xdist_group("dagster")

ORDERS = 500


def pay(running: RunningDagster, merchant: str, first: int, count: int = ORDERS) -> None:
    """Pay orders of 1.00 of fifty customers."""
    running.shop.run(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
        "SELECT :merchant, n::text, 'customer-' || n % 50, 1, 'EUR', 'paid', now() "
        "FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n",
        merchant=merchant,
        first=first,
        last=first + count - 1,
    )


def awarded(running: RunningDagster, *merchants: str) -> int:
    """Return the sum of the merchants' balances: with orders of 1.00, how many of their orders are awarded."""
    return running.shop.value(
        "SELECT coalesce(sum(balance), 0) FROM loyalty.accounts WHERE merchant_id = ANY(:merchants)",
        merchants=list(merchants),
    )


def waiting_batch(running: RunningDagster) -> bool:
    """Return whether a worker of the pipelines waits for a lock."""
    return running.shop.value(
        "SELECT count(*) > 0 FROM pg_stat_activity "
        "WHERE application_name = 'loyalty_pipelines' AND wait_event_type = 'Lock'"
    )


def look(running: RunningDagster, times: int = 1) -> None:
    """Wait until the alerts' sensor has looked so many times from now on."""

    def looked_at() -> object:
        return running.shop.value("SELECT max(looked_at) FROM loyalty.alert_observers")

    for _ in range(times):
        before = looked_at()
        wait_for("the alerts' sensor", lambda before=before: looked_at() != before)


def test_an_order_gets_its_points_and_a_problem_is_told_once_without_anybody_doing_anything(
    running: RunningDagster,
) -> None:
    """A problem of each kind: one that is read from the ledger, the result of an asset check, a failed run."""
    hook, queue, check, job = (
        running.hook,
        "few_updates_wait_in_the_queue",
        "every_template_override_renders",
        "sweep_points_job",
    )
    wanted = {"notification_checks_job": {}, job: {"dagster/partition": "m1"}}
    running.shop.merchant("m1")
    running.shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'expiry_warning', 'en', '{{', '', '', 'eve')"
    )
    running.shop.run("ALTER FUNCTION loyalty.order_differences RENAME TO gone")
    running.start(**wanted)
    running.shop.run("SELECT loyalty.report_failed_update('bob', 0, 1000, 'o', p_merchant_id => 'm1')")
    running.shop.run("UPDATE loyalty.reconciliation_queue SET parked_at = now()")
    running.shop.order("1", "19.99")
    wait_for("the sensor and the job", lambda: running.shop.balance() == 19)
    wait_for("the partition of the merchant", lambda: running.instance.get_dynamic_partitions("merchant") == ["m1"])
    started = [("started", check), ("started", queue), ("started", job)]
    wait_for("the alerts", lambda: set(started) <= set(hook.events))
    look(running)
    assert sorted(hook.events) == started, "each was told once"
    running.shop.run("ALTER FUNCTION loyalty.gone RENAME TO order_differences")
    running.shop.run("DELETE FROM loyalty.mail_templates")
    running.start(**wanted)
    running.shop.run("DELETE FROM loyalty.reconciliation_queue")
    running.shop.order("1", "19.99", status="cancelled")
    wait_for("them to be gone", lambda: running.shop.value("SELECT count(gone_since) FROM loyalty.alert_problems") == 3)
    assert len(hook.events) == 3, "each was told once, however often it was seen"
    wait_for("the points to be taken back", lambda: running.shop.balance() == 0)
    assert running.shop.entries() == [("earned", 19), ("reversed", -19)]
    running.shop.run("DELETE FROM sample_shop.merchants")
    running.shop.run("UPDATE loyalty.alert_problems SET gone_since = gone_since - interval '5 minutes'")
    wait_for("the all-clear", lambda: len(hook.events) == 6)
    wait_for("the partition to go", lambda: running.instance.get_dynamic_partitions("merchant") == [])
    assert sorted(hook.events[3:]) == [("ended", check), ("ended", queue), ("ended", job)]
    assert TOKEN not in running.log.read_text()


def test_a_worker_that_is_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing(running: RunningDagster) -> None:
    running.shop.merchant("killed")
    pay(running, "killed", 1)
    wait_for("the first orders", lambda: awarded(running, "killed") == ORDERS)
    with running.shop.engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM loyalty.accounts FOR UPDATE"))
        pay(running, "killed", ORDERS + 1)
        wait_for("a batch that waits for the accounts", lambda: waiting_batch(running))
        running.worker("award_points_job").kill()
        wait_for("Dagster to notice", lambda: running.runs("award_points_job")[0].status == dg.DagsterRunStatus.FAILURE)
        holder.rollback()
    wait_for("the next run", lambda: awarded(running, "killed") == 2 * ORDERS)
    assert running.shop.problems() == []


def test_a_restart_of_postgresql_in_the_middle_of_a_batch_is_survived_by_the_run(running: RunningDagster) -> None:
    running.shop.merchant("restart")
    pay(running, "restart", 1)
    wait_for("the first orders", lambda: awarded(running, "restart") == ORDERS)
    wait_for("the run to end", lambda: all(run.is_finished for run in running.runs("award_points_job")))
    before = len(running.runs("award_points_job"))
    holder = running.shop.engine.connect()
    holder.execute(text("SELECT 1 FROM loyalty.accounts FOR UPDATE"))
    pay(running, "restart", ORDERS + 1)
    wait_for("a batch that waits for the accounts", lambda: waiting_batch(running))
    running.ledger_server.stop(mode="immediate")
    holder.invalidate()
    running.shop.engine.dispose()
    start_server(running.ledger_server.data_dir, settings=FAST_SETTINGS)
    wait_for("the run to finish its work", lambda: awarded(running, "restart") == 2 * ORDERS)
    wait_for("the run to end", lambda: all(run.is_finished for run in running.runs("award_points_job")))
    runs = running.runs("award_points_job")
    assert [run.status for run in runs[: len(runs) - before]] == [dg.DagsterRunStatus.SUCCESS]
    assert running.shop.problems() == []


def test_sensor_sweep_and_two_command_lines_at_once_award_each_order_once(running: RunningDagster) -> None:
    merchants = ["swept-1", "swept-2"]
    for one in merchants:
        running.shop.merchant(one)
    wait_for("the partitions", lambda: set(merchants) <= set(running.instance.get_dynamic_partitions("merchant")))
    for one in merchants:
        pay(running, one, 1, 4 * ORDERS)
    sweep = running.launch_sweep(*merchants)
    commands = [running.command("loyalty", "award", "--batch-size", "50", "--sweep") for _ in range(2)]
    for command in [*commands, sweep]:
        output, _ = command.communicate(timeout=120)
        assert command.returncode == 0, output
    (run,) = running.runs("sweep_points_job", **{"dagster/asset_partition_range_start": merchants[0]})
    wait_for("the sweep to end", lambda: running.runs(run.job_name, **run.tags)[0].is_finished)
    wait_for("the inbox", lambda: running.shop.value("SELECT count(*) FROM loyalty.order_inbox") == 0)
    assert awarded(running, *merchants) == 8 * ORDERS
    assert running.runs(run.job_name, **run.tags)[0].status == dg.DagsterRunStatus.SUCCESS
    assert running.shop.problems() == []
