"""The decisions of the sensors, without Dagster's daemon."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from loyalty_pipelines.jobs import LIVE_MAX_RUNTIME_SECONDS, MAIL_MAX_RUNTIME_SECONDS, send_notifications_job
from loyalty_pipelines.sensors.merchants import compare
from loyalty_pipelines.sensors.one_run import RunInFlight, decide

NOW = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)


def run_of_age(seconds: float) -> RunInFlight:
    return RunInFlight(run_id="r1", requested_at=NOW - timedelta(seconds=seconds))


def test_nothing_waiting_is_a_skip_and_not_an_error() -> None:
    decision = decide(is_pending=False, in_flight=[], as_of=NOW)
    assert isinstance(decision, dg.SkipReason)


def test_something_waiting_starts_a_run_without_a_run_key() -> None:
    decision = decide(is_pending=True, in_flight=[], as_of=NOW)
    assert isinstance(decision, dg.RunRequest)
    assert decision.run_key is None


def test_a_run_in_flight_is_waited_for() -> None:
    decision = decide(is_pending=True, in_flight=[run_of_age(LIVE_MAX_RUNTIME_SECONDS - 1)], as_of=NOW)
    assert isinstance(decision, dg.SkipReason)
    assert "r1" in (decision.skip_message or "")


def test_a_run_older_than_it_may_get_is_a_zombie_and_does_not_stop_the_programme() -> None:
    decision = decide(is_pending=True, in_flight=[run_of_age(LIVE_MAX_RUNTIME_SECONDS + 1)], as_of=NOW)
    assert isinstance(decision, dg.RunRequest)


def test_a_run_of_mails_may_have_begun_its_longest_mail_at_its_end() -> None:
    from loyalty_pipelines.assets.notifications import DeliveryConfig

    most = next(one.le for one in DeliveryConfig.model_fields["max_seconds"].metadata if hasattr(one, "le"))
    assert most + 12 * 30 + 60 + 30 < MAIL_MAX_RUNTIME_SECONDS
    assert (send_notifications_job.tags or {})["dagster/max_runtime"] == str(MAIL_MAX_RUNTIME_SECONDS)
    for seconds, kind in ((MAIL_MAX_RUNTIME_SECONDS - 1, dg.SkipReason), (MAIL_MAX_RUNTIME_SECONDS + 1, dg.RunRequest)):
        decision = decide(
            is_pending=True,
            in_flight=[run_of_age(seconds)],
            as_of=NOW,
            max_runtime_seconds=MAIL_MAX_RUNTIME_SECONDS,
        )
        assert isinstance(decision, kind)


def test_a_failed_run_is_followed_by_a_pause_of_a_minute_and_not_by_a_run_every_tick() -> None:
    just_now = decide(is_pending=True, in_flight=[], failed_at=NOW - timedelta(seconds=59), as_of=NOW)
    a_minute_ago = decide(is_pending=True, in_flight=[], failed_at=NOW - timedelta(seconds=61), as_of=NOW)
    assert isinstance(just_now, dg.SkipReason)
    assert isinstance(a_minute_ago, dg.RunRequest)


def test_new_merchants_are_added_and_gone_ones_removed() -> None:
    changes = compare(merchants=["b", "c"], partitions=["a", "b"])
    assert (changes.added, changes.removed, changes.refused) == (("c",), ("a",), ())


@pytest.mark.parametrize("merchant_id", ["two\nlines", "a...b", "tab\there", ""])
def test_a_merchant_that_dagster_refuses_as_a_key_is_named_and_stops_no_other(merchant_id: str) -> None:
    changes = compare(merchants=[merchant_id, "good"], partitions=[])
    assert (changes.added, changes.refused) == (("good",), (merchant_id,))
