"""What the seven source views consist of: the field tables of design appendix A.

One table per relation, in the order of the view's columns. Everything else (parsing, checking, rendering)
reads these tables, so a field is described once.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class FieldKind(StrEnum):
    """How a value of the shop becomes a value of a view."""

    ID = "id"
    TEXT = "text"
    AMOUNT = "amount"
    POINTS = "points"
    CURRENCY = "currency"
    STATUS = "status"
    TIMESTAMP = "timestamp"
    BOOLEAN = "boolean"


@dataclass(frozen=True, kw_only=True)
class SourceField:
    """One column of a source view.

    `required`: the mapping must give a column, or a default where defaults are allowed.
    `default`: used where neither the mapping nor the row has a value.
    `takes_default`: the mapping may set a default; never for keys, states and instants, which cannot be
    the same for every row.
    `blank_is_null`: an empty text means that there is none. Many shops write "nobody" as an empty customer
    id; kept as an id it would be one account that collects everybody's points.
    `is_later`: came after the first version of its view. Its column stands behind the others, because PostgreSQL adds
    columns to a view only at the end, and whatever is built on the view stays.
    """

    name: str
    kind: FieldKind
    required: bool = False
    default: str | None = None
    takes_default: bool = True
    blank_is_null: bool = False
    is_later: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceRelation:
    """One source view: its columns in order, the key that no row may lack, our status words."""

    name: str
    fields: tuple[SourceField, ...]
    key: tuple[str, ...]
    statuses: tuple[str, ...] = ()
    needed_status: str | None = None

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def first_fields(self) -> tuple[SourceField, ...]:
        """The fields of the view's first version, which come first."""
        return tuple(field for field in self.fields if not field.is_later)

    @property
    def later_fields(self) -> tuple[SourceField, ...]:
        """The fields whose columns were added behind."""
        return tuple(field for field in self.fields if field.is_later)

    def field(self, name: str) -> SourceField:
        """Return the field called `name`; KeyError when the relation has none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def _key(name: str) -> SourceField:
    return SourceField(name=name, kind=FieldKind.ID, required=True, takes_default=False)


def _id(name: str, *, required: bool = False, takes_default: bool = False) -> SourceField:
    return SourceField(name=name, kind=FieldKind.ID, required=required, takes_default=takes_default, blank_is_null=True)


def _text(name: str, *, required: bool = False, default: str | None = None) -> SourceField:
    return SourceField(name=name, kind=FieldKind.TEXT, required=required, default=default)


def _amount(name: str, *, required: bool = False, default: str | None = None) -> SourceField:
    return SourceField(name=name, kind=FieldKind.AMOUNT, required=required, default=default)


def _at(name: str, *, required: bool = False) -> SourceField:
    return SourceField(name=name, kind=FieldKind.TIMESTAMP, required=required, takes_default=False)


def _flag(name: str, *, default: str) -> SourceField:
    return SourceField(name=name, kind=FieldKind.BOOLEAN, default=default)


def _later(field: SourceField) -> SourceField:
    return replace(field, is_later=True)


def _currency(*, required: bool) -> SourceField:
    return SourceField(name="currency", kind=FieldKind.CURRENCY, required=required)


_STATUS = SourceField(name="status", kind=FieldKind.STATUS, required=True, takes_default=False)
_MERCHANT = SourceField(name="merchant_id", kind=FieldKind.ID, required=True)

MERCHANTS = SourceRelation(
    name="merchants",
    key=("merchant_id",),
    fields=(
        _key("merchant_id"),
        _text("name", required=True),
        _text("timezone", required=True),
        _currency(required=True),
        _text("locale", default="en"),
        _flag("is_active", default="true"),
    ),
)
CUSTOMERS = SourceRelation(
    name="customers",
    key=("merchant_id", "customer_id"),
    fields=(
        _MERCHANT,
        _key("customer_id"),
        _text("email"),
        _text("name"),
        _text("locale"),
        _id("store_id", takes_default=True),
        _at("created_at", required=True),
        _flag("is_active", default="true"),
    ),
)
ORDERS = SourceRelation(
    name="orders",
    key=("merchant_id", "order_id"),
    statuses=("pending", "paid", "partially_refunded", "refunded", "cancelled", "failed"),
    needed_status="paid",
    fields=(
        _MERCHANT,
        _key("order_id"),
        _text("order_number"),
        _id("customer_id", required=True),
        _id("store_id", takes_default=True),
        _amount("total_amount", required=True),
        SourceField(name="points_redeemed", kind=FieldKind.POINTS, default="0"),
        _currency(required=True),
        _STATUS,
        _at("paid_at", required=True),
        _at("updated_at", required=True),
        _later(_id("plan_id", takes_default=True)),
        _later(_amount("discount_amount", default="0")),
        _later(_amount("points_discount_amount")),
    ),
)
REFUNDS = SourceRelation(
    name="refunds",
    key=("merchant_id", "refund_id", "order_id"),
    fields=(
        _MERCHANT,
        _key("refund_id"),
        _key("order_id"),
        _amount("amount", required=True),
        _at("refunded_at", required=True),
    ),
)
PAYMENTS = SourceRelation(
    name="payments",
    key=("merchant_id", "payment_id"),
    statuses=("pending", "authorized", "captured", "failed", "refunded", "disputed", "unknown"),
    needed_status="captured",
    fields=(
        _MERCHANT,
        _key("payment_id"),
        _id("order_id"),
        _id("subscription_id"),
        _id("customer_id"),
        _amount("amount", required=True),
        _amount("refunded_amount", default="0"),
        _currency(required=True),
        _STATUS,
        _at("captured_at"),
        _at("period_start"),
        _at("period_end"),
        _later(_id("plan_id")),
        _later(_at("created_at")),
        _later(_at("updated_at")),
    ),
)
SUBSCRIPTIONS = SourceRelation(
    name="subscriptions",
    key=("merchant_id", "subscription_id"),
    statuses=("trialing", "active", "past_due", "paused", "cancelled", "expired", "incomplete"),
    needed_status="active",
    fields=(
        _MERCHANT,
        _key("subscription_id"),
        _id("customer_id", required=True),
        _id("plan_id", required=True, takes_default=True),
        _id("order_id"),
        _STATUS,
        _amount("amount"),
        _currency(required=False),
        _at("current_period_start"),
        _at("current_period_end"),
        _at("cancelled_at"),
        _flag("is_complimentary", default="false"),
        _at("created_at", required=True),
        _later(_at("updated_at")),
    ),
)
PLANS = SourceRelation(
    name="plans",
    key=("merchant_id", "plan_id"),
    fields=(
        _MERCHANT,
        _key("plan_id"),
        _text("name", required=True),
        _amount("amount", required=True),
        _currency(required=True),
        _text("interval", required=True),
        _flag("allows_multiple", default="false"),
    ),
)

SOURCE_RELATIONS: dict[str, SourceRelation] = {
    relation.name: relation for relation in (MERCHANTS, CUSTOMERS, ORDERS, REFUNDS, PAYMENTS, SUBSCRIPTIONS, PLANS)
}

UNRECOGNIZED = "unrecognized"
"""The status of a row whose own word the mapping does not know; `source_status` keeps the word."""

TRUE_WORDS = ("true", "t", "yes", "y", "on", "1")
FALSE_WORDS = ("false", "f", "no", "n", "off", "0")
