"""Plans that look wrong stop their merchant: compared with its own nights, or without them with its accounts."""

from datetime import date, timedelta

import pytest

from loyalty_pipelines.db import expiry, expiry_undo_run
from loyalty_pipelines.db.expiry_checks import stopped_merchants
from loyalty_pipelines.domain.expiry import ExpiryPlan, Limits, MerchantExpiry, Page, Step
from loyalty_pipelines.domain.expiry_undo import Undo
from tests.expiry import Nights, night
from tests.shop import Shop

# 30 days of period, 14 of lead, in Luxembourg.
ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_ON = date(2025, 1, 18)
GONE_ON = date(2025, 2, 1)
DUE_AT = night(GONE_ON)
LIMITS = Limits(few_accounts=2)


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


def due(nights: Nights, count: int, *, others: int = 0, merchant: str = "m1") -> None:
    """Give so many customers points that are due at DUE_AT and were told, and others points that are not."""
    nights.crowd(count, active_at=ACTIVE_AT, merchant=merchant)
    nights.crowd(others, active_at="2025-01-31T12:00:00+01:00", prefix="other ", merchant=merchant)
    nights.live(WARNED_ON, 1, merchants=[merchant])


def past(shop: Shop, *expired: int, undone: int = 0, is_stopped: bool = False, days_ago: int = 1) -> None:
    """Write finished runs, one per night, the last of them so many days before DUE_AT."""
    for number, accounts in enumerate(expired):
        shop.run(
            "INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor, finished_at, accounts_expired, "
            "accounts_undone, is_stopped) VALUES ('m1', gen_random_uuid()::text, :as_of, 'test', now(), :expired, "
            ":undone, :is_stopped)",
            as_of=DUE_AT - timedelta(days=number + days_ago),
            expired=accounts,
            undone=undone,
            is_stopped=is_stopped,
        )


def planned(done: MerchantExpiry) -> ExpiryPlan:
    assert done.plan is not None
    return done.plan


# --- the rule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accounts", "nights", "usual", "most"),
    [
        # No history: a share of the accounts, and a few always.
        (1_000, 0, 0, 200),
        (1_000, 6, 500, 200),
        (99, 0, 0, 20),
        (104, 0, 0, 20),
        (105, 0, 0, 21),
        (0, 0, 0, 20),
        # A history: so many times its worst night, a hundredth of the accounts, and a few always.
        (1_000, 7, 500, 2_500),
        (1_000, 30, 3, 20),
        (1_000, 30, 5, 25),
        (10_000, 30, 0, 100),
        (10_000, 30, 30, 150),
    ],
)
def test_how_many_may_expire_in_a_night(accounts: int, nights: int, usual: int, most: int) -> None:
    found = Limits().most(accounts_with_points=accounts, nights_compared=nights, accounts_usual=usual)
    assert found == most


def test_what_a_person_has_accepted_is_the_limit_whatever_the_history() -> None:
    accepted = Limits(accepted_accounts=7)
    assert accepted.most(accounts_with_points=1_000, nights_compared=0, accounts_usual=0) == 7
    assert accepted.most(accounts_with_points=1_000, nights_compared=30, accounts_usual=500) == 7


def test_a_plan_is_stopped_above_its_limit_and_not_at_it() -> None:
    plan = ExpiryPlan(
        accounts_with_points=100,
        accounts_due=20,
        points_due=9,
        accounts_waiting=0,
        nights_compared=0,
        accounts_usual=0,
        accounts_limit=20,
    )
    assert (plan.is_stopped, ExpiryPlan(**{**vars(plan), "accounts_due": 21}).is_stopped) == (False, True)


# --- first runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("others", "is_stopped"), [(40, False), (39, True), (0, True)])
def test_a_first_night_takes_at_most_a_share_of_the_accounts(
    shop: Shop, nights: Nights, others: int, is_stopped: bool
) -> None:
    due(nights, 10, others=others)
    done = nights.run(DUE_AT, limits=LIMITS)
    assert (done.is_stopped, done.accounts_expired) == (is_stopped, 0 if is_stopped else 10)
    assert planned(done).accounts_with_points == 10 + others
    assert (len(nights.expired()), shop.problems()) == (0 if is_stopped else 10, [])


def test_a_few_accounts_are_never_too_many(nights: Nights) -> None:
    due(nights, 20)
    assert nights.run(DUE_AT, limits=Limits()).accounts_expired == 20


def test_accounts_without_points_or_no_longer_active_are_no_part_of_the_share(shop: Shop, nights: Nights) -> None:
    due(nights, 10, others=40)
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'other 1'")
    done = nights.run(DUE_AT, limits=LIMITS)
    assert (planned(done).accounts_with_points, done.is_stopped) == (49, True)


# --- later runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "is_stopped"),
    [
        ([2, 0, 0, 0, 0, 0, 0], False),
        ([1, 0, 0, 0, 0, 0, 0], True),
        # Six nights are no history: a fifth of the accounts may go.
        ([1, 0, 0, 0, 0, 0], False),
    ],
)
def test_later_nights_are_compared_with_the_worst_of_the_merchants_own(
    shop: Shop, nights: Nights, history: list[int], is_stopped: bool
) -> None:
    due(nights, 10, others=40)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *history)
    done = nights.run(DUE_AT, limits=LIMITS)
    assert (done.is_stopped, planned(done).nights_compared) == (is_stopped, len(history))
    assert planned(done).accounts_usual == max(history)


def test_after_quiet_nights_a_hundredth_of_the_accounts_is_no_surprise(shop: Shop, nights: Nights) -> None:
    due(nights, 4, others=396)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *[0] * 10)
    assert nights.run(DUE_AT, limits=LIMITS).accounts_expired == 4


def test_after_quiet_nights_more_than_a_hundredth_is(shop: Shop, nights: Nights) -> None:
    due(nights, 5, others=394)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *[0] * 10)
    assert nights.run(DUE_AT, limits=LIMITS).is_stopped


def test_nights_of_long_ago_stopped_ones_unfinished_ones_and_later_ones_are_not_compared(
    shop: Shop, nights: Nights
) -> None:
    due(nights, 10, others=40)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *[0] * 10)
    past(shop, 100, days_ago=30)
    past(shop, 100, is_stopped=True)
    past(shop, 100, days_ago=-1)
    shop.run(
        "INSERT INTO loyalty.expiry_runs "
        "(merchant_id, run_id, as_of, actor, started_at, finished_at, accounts_expired) "
        "VALUES ('m1', 'dead', :as_of, 'test', now() - interval '2 days', NULL, 100), "
        "('m2', 'of another', :as_of, 'test', now(), now(), 100)",
        as_of=DUE_AT - timedelta(days=2),
    )
    plan = planned(nights.run(DUE_AT, limits=LIMITS))
    assert (plan.nights_compared, plan.accounts_usual, plan.is_stopped) == (10, 0, True)


def test_several_runs_of_one_day_are_one_night(shop: Shop, nights: Nights) -> None:
    due(nights, 10, others=40)
    shop.run("DELETE FROM loyalty.expiry_runs")
    for hour in range(8):
        nights.run(DUE_AT - timedelta(hours=hour + 4))
    assert planned(nights.run(DUE_AT, limits=LIMITS)).nights_compared == 1


def test_the_nights_themselves_are_the_history(shop: Shop, nights: Nights) -> None:
    """A customer a day, and then ten at once."""
    for number in range(9):
        nights.crowd(1, active_at=night(date(2024, 12, 23) + timedelta(days=number)), prefix=f"day {number} ")
    nights.crowd(10, active_at=ACTIVE_AT)
    nights.live("2025-01-09", 23, limits=Limits())
    done = nights.run(DUE_AT, limits=LIMITS)
    plan = planned(done)
    assert (plan.nights_compared, plan.accounts_usual, plan.accounts_limit, plan.accounts_due) == (23, 1, 5, 10)
    assert (done.is_stopped, len(nights.expired())) == (True, 9)


def test_a_mass_expiry_that_was_undone_is_no_measure_for_later_nights(shop: Shop, nights: Nights) -> None:
    nights.crowd(30, active_at="2024-12-31T12:00:00+01:00", prefix="wrong ")
    nights.live(WARNED_ON - timedelta(days=1), 1)
    due(nights, 10, others=60)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *[0] * 7, days_ago=2)
    assert nights.run(DUE_AT - timedelta(days=1), run_id="wrong").accounts_expired == 30
    expiry_undo_run.undo_run(shop.engine, Undo(run_id="wrong", reason="a mistake", actor="eve"))
    plan = planned(nights.run(DUE_AT, limits=LIMITS))
    assert (plan.accounts_due, plan.accounts_usual, plan.is_stopped) == (10, 0, True)


# --- stopped, and let through ---------------------------------------------------------------------------


def test_a_stopped_merchant_is_told_with_its_numbers_and_the_command(shop: Shop, nights: Nights) -> None:
    due(nights, 10)
    done = nights.run(DUE_AT, limits=LIMITS)
    assert planned(done).reason("m1") == (
        "10 accounts with 1,000 points are due, more than the 2 that are no surprise: there are fewer than 7 nights "
        "to compare with (1), and 10 accounts with points. If they are right: loyalty expire m1 --accept 10"
    )
    past(shop, *[1] * 9)
    later = nights.run(DUE_AT + timedelta(hours=1), limits=Limits(few_accounts=2, max_times_usual=3))
    assert planned(later).reason("m1") == (
        "10 accounts with 1,000 points are due, more than the 3 that are no surprise: at most 1 expired in one of the "
        "10 nights before. If they are right: loyalty expire m1 --accept 10"
    )


def test_a_stopped_plan_is_written_into_its_run_and_takes_nothing(shop: Shop, nights: Nights) -> None:
    due(nights, 10)
    nights.run(DUE_AT, run_id="stopped", limits=LIMITS)
    (run,) = shop.rows("SELECT * FROM loyalty.expiry_runs WHERE run_id = 'stopped'")
    assert (run.is_stopped, run.accounts_due, run.points_due, run.accounts_limit) == (True, 10, 1_000, 2)
    assert (run.accounts_expired, run.finished_at is not None, nights.expired()) == (0, True, {})


def test_the_warnings_of_a_stopped_merchant_go_out(nights: Nights) -> None:
    due(nights, 10)
    nights.crowd(1, active_at="2025-01-10T12:00:00+01:00", prefix="near ")
    done = nights.run(DUE_AT, limits=LIMITS)
    assert (done.is_stopped, done.accounts_warned) == (True, 1)


def test_only_the_merchant_that_looks_wrong_is_stopped(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    due(nights, 10)
    due(nights, 2, merchant="m2")
    done = {one.merchant_id: one for one in nights.run_all(DUE_AT, limits=LIMITS)}
    assert [(one.is_stopped, one.accounts_expired) for one in (done["m1"], done["m2"])] == [(True, 0), (False, 2)]


def test_the_number_that_was_accepted_lets_so_many_through_and_not_more(nights: Nights) -> None:
    due(nights, 10)
    assert nights.run(DUE_AT, limits=LIMITS).is_stopped
    nights.crowd(1, active_at=ACTIVE_AT, prefix="one more ")
    nights.live(WARNED_ON, 1)
    assert nights.run(DUE_AT, limits=Limits(accepted_accounts=10)).is_stopped
    done = nights.run(DUE_AT, limits=Limits(accepted_accounts=11))
    assert (done.is_stopped, done.accounts_expired) == (False, 11)


def test_the_same_night_again_is_stopped_again_until_it_is_accepted(shop: Shop, nights: Nights) -> None:
    due(nights, 10)
    assert [nights.run(DUE_AT, run_id="r", limits=LIMITS).is_stopped for _ in range(2)] == [True, True]
    done = nights.run(DUE_AT, run_id="r", limits=Limits(accepted_accounts=10))
    assert (done.is_stopped, done.accounts_expired) == (False, 10)
    assert shop.rows("SELECT is_stopped FROM loyalty.expiry_runs WHERE run_id = 'r'") == [(False,)]


def test_points_that_wait_for_their_warning_do_not_stop_a_merchant(nights: Nights) -> None:
    due(nights, 2)
    nights.crowd(10, active_at="2024-12-20T12:00:00+01:00", prefix="waiting ")
    done = nights.run(DUE_AT, steps=frozenset({Step.PLAN, Step.EXPIRE}), limits=LIMITS)
    assert (planned(done).accounts_due, planned(done).accounts_waiting, done.accounts_expired) == (2, 10, 2)


def test_a_stop_does_not_end_by_itself_however_long_nobody_looks(shop: Shop, nights: Nights) -> None:
    due(nights, 10)
    past(shop, *[0] * 20)
    for days in range(40):
        done = nights.run(DUE_AT + timedelta(days=days), limits=LIMITS)
        assert (done.is_stopped, planned(done).nights_compared, planned(done).accounts_limit) == (True, 20, 2)
    done = nights.run(DUE_AT + timedelta(days=40), limits=Limits(accepted_accounts=10))
    assert (done.is_stopped, done.accounts_expired) == (False, 10)
    with shop.engine.connect() as conn:
        tomorrow = DUE_AT + timedelta(days=41)
        after = expiry.plan(conn, "m1", as_of=tomorrow, is_warning_required=True, limits=LIMITS)
    assert (after.nights_compared, after.accounts_usual) == (1, 0)


def test_what_a_person_has_let_through_is_no_measure_for_later_nights(shop: Shop, nights: Nights) -> None:
    nights.crowd(30, active_at="2024-12-31T12:00:00+01:00", prefix="first ")
    nights.live(WARNED_ON - timedelta(days=1), 1)
    due(nights, 10, others=60)
    shop.run("DELETE FROM loyalty.expiry_runs")
    past(shop, *[1] * 7, days_ago=2)
    assert nights.run(DUE_AT - timedelta(days=1), limits=Limits(accepted_accounts=30)).accounts_expired == 30
    plan = planned(nights.run(DUE_AT, limits=LIMITS))
    assert (plan.nights_compared, plan.accounts_usual, plan.accounts_due, plan.is_stopped) == (8, 1, 10, True)


def test_a_run_that_was_let_through_is_not_stopped_by_one_beside_it_that_is_not(shop: Shop, nights: Nights) -> None:
    due(nights, 10)
    beside: list[bool] = []

    def run_beside(_: str, page: Page) -> None:
        if page.points and not beside:
            beside.append(True)
            beside[0] = nights.run(DUE_AT, limits=LIMITS).is_stopped

    done = nights.run(DUE_AT, limits=Limits(accepted_accounts=10), chunk_size=4, on_page=run_beside)
    assert (beside, done.is_stopped, done.accounts_expired) == ([True], False, 10)
    with shop.engine.connect() as conn:
        assert stopped_merchants(conn) == []
        # Taken up by a run without --accept, it is none of the nights that others are measured by all the same.
        tomorrow = expiry.plan(conn, "m1", as_of=DUE_AT + timedelta(days=1), is_warning_required=True, limits=LIMITS)
    assert tomorrow.accounts_usual == 0
