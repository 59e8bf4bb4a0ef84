"""Manual repair: one entry of kind 'adjusted' for a balance that is wrong, with its reason and its actor."""

from sqlalchemy import Connection, Row

from loyalty_pipelines.db.awards import merchant_settings
from loyalty_pipelines.db.programs import require_merchant
from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.repairs import (
    Adjustment,
    AdjustmentReport,
    CustomerNotFoundError,
    NotEnoughPointsError,
    ReferenceTakenError,
)

LOCK_REFERENCE = load("repairs/lock_reference")
ADJUSTMENT = load("repairs/adjustment")
LOCK_ACCOUNT = load("repairs/lock_account")
CUSTOMER_IS_LISTED = load("repairs/customer_is_listed")
CREATE_ACCOUNT = load("repairs/create_account")
POST_ADJUSTMENT = load("repairs/post_adjustment")


def adjust(conn: Connection, adjustment: Adjustment) -> AdjustmentReport:
    """Write the adjustment and move the balance; the caller commits, or rolls back for a dry run.

    Counts as activity. The same adjustment again writes nothing. Raises `NoMappingError`,
    `MerchantNotFoundError`, `CustomerNotFoundError`, `NotEnoughPointsError`, `ReferenceTakenError`.
    """
    merchant_id = adjustment.merchant_id
    # Behind a withdrawn mapping the merchant's time zone is gone, and with it the time when points expire.
    require_shop(conn)
    require_merchant(conn, merchant_id)
    conn.execute(LOCK_REFERENCE, {"merchant_id": merchant_id, "reference": adjustment.reference})
    done = _find(conn, adjustment)
    if done:
        return done
    account, is_new = _lock_or_create(conn, merchant_id, adjustment.customer_id)
    is_debt_allowed = adjustment.points < 0 and merchant_settings(conn, merchant_id).is_debt_allowed
    if adjustment.points < 0 and not is_debt_allowed and account.balance - account.held < -adjustment.points:
        raise NotEnoughPointsError(
            customer_id=account.customer_id,
            balance=account.balance,
            held=account.held,
            requested=-adjustment.points,
        )
    entry = conn.execute(
        POST_ADJUSTMENT,
        {
            "merchant_id": merchant_id,
            "account_id": account.account_id,
            "points": adjustment.points,
            "reference": adjustment.reference,
            "reason": adjustment.reason,
            "actor": adjustment.actor,
            "run_id": adjustment.run_id,
            "is_debt_allowed": is_debt_allowed,
        },
    ).one()
    return AdjustmentReport(
        merchant_id=merchant_id,
        customer_id=adjustment.customer_id,
        account_customer_id=account.customer_id,
        reference=adjustment.reference,
        points=adjustment.points,
        seq=entry.seq,
        balance_before=entry.balance_before,
        balance_after=entry.balance_after,
        expires_before=account.expires_at,
        expires_at=_lock(conn, merchant_id, adjustment.customer_id).expires_at,
        is_account_new=is_new,
        is_repeated=False,
        was_due=account.is_due,
    )


def _find(conn: Connection, adjustment: Adjustment) -> AdjustmentReport | None:
    entry = conn.execute(
        ADJUSTMENT,
        {
            "merchant_id": adjustment.merchant_id,
            "reference": adjustment.reference,
            "customer_id": adjustment.customer_id,
        },
    ).one_or_none()
    if entry is None:
        return None
    if (entry.account_customer_id, entry.points) != (entry.wanted_customer_id, adjustment.points):
        raise ReferenceTakenError(reference=adjustment.reference, customer_id=entry.customer_id, points=entry.points)
    expires_at = _lock(conn, adjustment.merchant_id, adjustment.customer_id).expires_at
    return AdjustmentReport(
        merchant_id=adjustment.merchant_id,
        customer_id=adjustment.customer_id,
        account_customer_id=entry.account_customer_id,
        reference=adjustment.reference,
        points=entry.points,
        seq=entry.seq,
        balance_before=entry.balance_before,
        balance_after=entry.balance_after,
        expires_before=expires_at,
        expires_at=expires_at,
        is_account_new=False,
        is_repeated=True,
        was_due=False,
    )


def _lock_or_create(conn: Connection, merchant_id: str, customer_id: str) -> tuple[Row, bool]:
    """Lock the customer's account (the survivor's, after a merge); make it where only the shop knows the customer."""
    account = _lock(conn, merchant_id, customer_id)
    if account.account_id is not None:
        return account, False
    customer = {"merchant_id": merchant_id, "customer_id": customer_id}
    if not conn.execute(CUSTOMER_IS_LISTED, customer).scalar_one():
        raise CustomerNotFoundError(merchant_id=merchant_id, customer_id=customer_id)
    is_new = bool(conn.execute(CREATE_ACCOUNT, customer).rowcount)
    return _lock(conn, merchant_id, customer_id), is_new


def _lock(conn: Connection, merchant_id: str, customer_id: str) -> Row:
    return conn.execute(LOCK_ACCOUNT, {"merchant_id": merchant_id, "customer_id": customer_id}).one()
