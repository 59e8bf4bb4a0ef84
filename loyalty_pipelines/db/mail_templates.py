"""Overrides of the built-in mail templates: read for senders, set, removed, and who gets which. The caller commits."""

from collections.abc import Collection

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.mail_coverage import (
    CustomerGroup,
    OverrideNotFoundError,
    OverrideProblem,
    broken_ones,
    unused_ones,
)
from loyalty_pipelines.domain.mails import Override, Overrides, StoredOverride, checked, language_of

OVERRIDES_OF = load("mail_templates/overrides_of")
STORED_OVERRIDES = load("mail_templates/stored_overrides")
SET_OVERRIDE = load("mail_templates/set_override")
REMOVE_OVERRIDE = load("mail_templates/remove_override")
CUSTOMER_GROUPS = load("mail_templates/customer_groups")
MERCHANT_FACTS = load("mail_templates/merchant_facts")


def overrides_of(conn: Connection, merchant_ids: Collection[str]) -> Overrides:
    """Return the overrides of these merchants and of the platform, for `domain.mails.render`."""
    rows = conn.execute(OVERRIDES_OF, {"merchant_ids": list(merchant_ids)})
    return Overrides(Override(**row._mapping) for row in rows)


def stored_overrides(conn: Connection, *, merchant_id: str | None = None) -> list[StoredOverride]:
    """Return a merchant's overrides and the platform's; None: everybody's."""
    rows = conn.execute(STORED_OVERRIDES, {"merchant_id": merchant_id})
    return [StoredOverride(**row._mapping) for row in rows]


def set_override(conn: Connection, override: Override, *, actor: str) -> bool:
    """Write the override under its language; return whether it replaced one.

    Raises `TemplateRefusedError` and `UnknownLanguageError`.
    """
    right = checked(override)
    return conn.execute(
        SET_OVERRIDE,
        {
            "merchant_id": right.merchant_id,
            "store_id": right.store_id,
            "template": right.template,
            "locale": right.locale,
            "subject": right.subject,
            "text_body": right.text_body,
            "html_body": right.html_body,
            "actor": actor,
        },
    ).scalar_one()


def remove_override(conn: Connection, *, merchant_id: str, store_id: str, template: str, locale: str) -> str:
    """Remove an override; return the locale that it was kept under. Raises `OverrideNotFoundError`."""
    # As it is written first: a row that was not set by us may have another locale than a language.
    for name in dict.fromkeys(one for one in (locale, language_of(locale)) if one):
        key = {"merchant_id": merchant_id, "store_id": store_id, "template": template, "locale": name}
        if conn.execute(REMOVE_OVERRIDE, key).rowcount:
            return name
    raise OverrideNotFoundError(merchant_id=merchant_id, store_id=store_id, template=template, locale=locale)


def customer_groups(conn: Connection, merchant_ids: Collection[str] | None = None) -> list[CustomerGroup]:
    """Return the active customers of these merchants (None: of all) by store and locale."""
    rows = conn.execute(CUSTOMER_GROUPS, {"merchant_ids": None if merchant_ids is None else list(merchant_ids)})
    return [CustomerGroup(**row._mapping) for row in rows]


def override_problems(conn: Connection) -> tuple[int, list[OverrideProblem], list[OverrideProblem]]:
    """Return how many overrides there are, those that don't render, and those that nobody gets."""
    stored = stored_overrides(conn)
    # The customers of all merchants are counted only for the sake of an override that is for all.
    owners = {one.merchant_id for one in stored}
    groups = customer_groups(conn, None if "" in owners else owners)
    return len(stored), broken_ones(stored), unused_ones(stored, groups, Overrides(stored))


def merchant_facts(conn: Connection, merchant_id: str) -> tuple[str | None, str | None]:
    """Return the merchant's name and locale; None where the shop does not list it any more."""
    row = conn.execute(MERCHANT_FACTS, {"merchant_id": merchant_id}).first()
    return (row.name, row.locale) if row else (None, None)
