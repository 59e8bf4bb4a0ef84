"""Overrides of mail templates in the database: what senders read, what is refused, what the check says."""

from collections.abc import Iterator

import dagster as dg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from loyalty_pipelines.checks.mail_templates import every_template_override_renders
from loyalty_pipelines.db import mail_templates as db
from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.domain.mail_coverage import CustomerGroup, OverrideNotFoundError
from loyalty_pipelines.domain.mail_templates import TemplateRefusedError
from loyalty_pipelines.domain.mails import MailFacts, Override, UnknownLanguageError, render
from loyalty_pipelines.resources.database import LedgerDatabase
from tests.shop import Shop

BONUS = "loyalty_welcome_bonus"


def override(merchant: str = "m1", store: str = "", locale: str = "en", **parts: str) -> Override:
    return Override(
        merchant_id=merchant,
        store_id=store,
        template=BONUS,
        locale=locale,
        subject=parts.get("subject", f"{merchant}/{store}/{locale}"),
        text_body=parts.get("text", "text"),
        html_body=parts.get("html", "<p>html</p>"),
    )


def subject_of(conn: Connection, merchant: str, store: str | None, locale: str) -> str:
    """Return the subject that a sender would write."""
    facts = MailFacts(
        template=BONUS,
        payload={"points": 5},
        merchant_id=merchant,
        merchant_name="Shop",
        merchant_locale="en",
        merchant_timezone="UTC",
        customer_name=None,
        customer_locale=locale,
        store_id=store,
    )
    return render(facts, db.overrides_of(conn, [merchant])).subject


def customer(shop: Shop, name: str, locale: str | None, store: str | None, *, merchant: str = "m1") -> None:
    shop.run(
        "INSERT INTO sample_shop.customers (merchant_id, id, locale, store_id) VALUES (:m, :id, :locale, :store)",
        m=merchant,
        id=name,
        locale=locale,
        store=store,
    )


@pytest.fixture
def stores(shop: Shop) -> Shop:
    """The sample shop with stores and customers who may be inactive."""
    shop.run("ALTER TABLE sample_shop.customers ADD store_id text, ADD is_active boolean NOT NULL DEFAULT true")
    mapping = sample_shop.mapping()
    assert mapping.customers
    columns = {**mapping.customers.columns, "store_id": "store_id", "is_active": "is_active"}
    customers = mapping.customers.model_copy(update={"columns": columns, "defaults": {}})
    with shop.engine.begin() as conn:
        sources.apply(conn, mapping.model_copy(update={"customers": customers}))
    return shop


def test_a_sender_reads_the_overrides_of_its_merchants_and_of_the_platform_only(shop: Shop, conn: Connection) -> None:
    for one in (override("m1"), override("m1", "s1"), override("m2"), override("", locale="de")):
        assert not db.set_override(conn, one, actor="test")
    assert {one.key[:2] for one in db.overrides_of(conn, ["m1"])} == {("m1", ""), ("m1", "s1"), ("", "")}
    assert {one.key[:2] for one in db.overrides_of(conn, ["m1", "m2"])} == {
        ("m1", ""), ("m1", "s1"), ("m2", ""), ("", ""),
    }  # fmt: skip
    assert {one.key[:2] for one in db.overrides_of(conn, [])} == {("", "")}
    assert subject_of(conn, "m1", "s1", "en") == "m1/s1/en"
    assert subject_of(conn, "m1", "s2", "en") == "m1//en"
    assert subject_of(conn, "m2", "s1", "en") == "m2//en"
    assert subject_of(conn, "m3", "s1", "de") == "//de"
    assert subject_of(conn, "m3", "s1", "en") == "Your welcome bonus from Shop"


def test_setting_an_override_again_replaces_it(conn: Connection) -> None:
    assert not db.set_override(conn, override(), actor="first")
    assert db.set_override(conn, override(subject="new", text="new text", html="new html"), actor="second")
    (found,) = db.stored_overrides(conn)
    assert (found.subject, found.text_body, found.html_body) == ("new", "new text", "new html")
    assert found.updated_by == "second"


def test_an_override_is_written_under_its_language(conn: Connection) -> None:
    db.set_override(conn, override(locale="de-LU"), actor="test")
    assert [one.locale for one in db.stored_overrides(conn)] == ["de"]
    assert db.remove_override(conn, merchant_id="m1", store_id="", template=BONUS, locale="DE") == "de"
    assert db.stored_overrides(conn) == []


def test_what_is_refused_is_not_written(conn: Connection) -> None:
    with pytest.raises(TemplateRefusedError):
        db.set_override(conn, override(html="{{ ''.__class__ }}"), actor="test")
    with pytest.raises(UnknownLanguageError):
        db.set_override(conn, override(locale="xx"), actor="test")
    assert db.stored_overrides(conn) == []


def test_a_store_without_a_merchant_is_refused_by_the_database(conn: Connection) -> None:
    with pytest.raises(IntegrityError, match="mail_templates_store_has_a_merchant"):
        db.set_override(conn, override("", "s1"), actor="test")


def test_what_is_not_there_is_not_removed(conn: Connection) -> None:
    db.set_override(conn, override("m1", "s1"), actor="test")
    for merchant, store, template, locale in (
        ("m1", "", BONUS, "en"), ("", "", BONUS, "en"), ("m2", "s1", BONUS, "en"), ("m1", "s1", BONUS, "fr"),
        ("m1", "s1", "loyalty_enrollment", "en"),
    ):  # fmt: skip
        with pytest.raises(OverrideNotFoundError, match="Found no override"):
            db.remove_override(conn, merchant_id=merchant, store_id=store, template=template, locale=locale)
    assert len(db.stored_overrides(conn)) == 1


def test_a_locale_that_was_written_past_the_command_line_can_be_removed(conn: Connection, shop: Shop) -> None:
    db.set_override(conn, override(locale="de"), actor="test")
    conn.commit()
    shop.run(
        "INSERT INTO loyalty.mail_templates SELECT merchant_id, store_id, template, 'de-LU', subject, text_body, "
        "html_body, now(), 'x' FROM loyalty.mail_templates"
    )
    key = {"merchant_id": "m1", "store_id": "", "template": BONUS}
    assert db.remove_override(conn, **key, locale="de-LU") == "de-LU"
    assert db.remove_override(conn, **key, locale="de-LU") == "de"


def test_a_merchant_sees_its_own_overrides_and_the_platforms(conn: Connection) -> None:
    for one in (override("m2"), override("m1", "s1"), override("m1"), override("")):
        db.set_override(conn, one, actor="test")
    assert [one.key[:2] for one in db.stored_overrides(conn, merchant_id="m1")] == [("", ""), ("m1", ""), ("m1", "s1")]
    assert len(db.stored_overrides(conn)) == 4


def test_text_of_four_bytes_and_of_right_to_left_comes_back_as_it_was(conn: Connection) -> None:
    text = "😀 {{ points }} العربية \u202f'; DROP TABLE loyalty.mail_templates; --"
    db.set_override(conn, override(subject=text, text=text, html=text), actor="test")
    (found,) = db.overrides_of(conn, ["m1"])
    assert (found.subject, found.text_body, found.html_body) == (text, text, text)


def test_customers_are_counted_by_store_and_locale_the_inactive_ones_left_out(stores: Shop, conn: Connection) -> None:
    stores.merchant("m2")
    customer(stores, "a", "de", "s1")
    customer(stores, "b", "de", "s1")
    customer(stores, "c", None, None)
    customer(stores, "d", "fr", "s2")
    stores.run("UPDATE sample_shop.customers SET is_active = false WHERE id = 'd'")
    rows = [(one.merchant_id, one.store_id, one.locale, one.customers) for one in db.customer_groups(conn, ["m1"])]
    assert rows == [("m1", "s1", "de", 2), ("m1", None, None, 1)]
    assert [one.merchant_id for one in db.customer_groups(conn)] == ["m1", "m1", "m2"]
    (empty,) = db.customer_groups(conn, ["m2"])
    assert empty == CustomerGroup(merchant_id="m2", merchant_locale="en", store_id=None, locale=None, customers=0)


@pytest.fixture
def instance(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def check(instance: dg.DagsterInstance, database_url: str) -> dg.AssetCheckEvaluation:
    """Run the check alone."""
    result = dg.materialize(
        [every_template_override_renders],
        instance=instance,
        resources={"ledger": LedgerDatabase(url=database_url)},
        selection=dg.AssetSelection.checks(every_template_override_renders),
    )
    (found,) = result.get_asset_check_evaluations()
    return found


def values(found: dg.AssetCheckEvaluation) -> dict[str, object]:
    return {name: one.value for name, one in found.metadata.items()}


def test_the_check_is_green_without_overrides(shop: Shop, instance: dg.DagsterInstance, database_url: str) -> None:
    found = check(instance, database_url)
    assert found.passed
    assert values(found)["overrides"] == 0


def test_the_check_names_broken_overrides_with_the_reason_and_unused_ones(
    stores: Shop, instance: dg.DagsterInstance, database_url: str
) -> None:
    customer(stores, "ann", "de", "s1")
    stores.merchant("m2")
    customer(stores, "bob", "pt", None, merchant="m2")
    with stores.engine.begin() as conn:
        for one in (override("m1", "s1", "de"), override("m1", "s9", "de"), override("", locale="pt")):
            db.set_override(conn, one, actor="test")
    found = check(instance, database_url)
    assert found.passed
    assert values(found)["unused"] == 1
    assert "'s9'" in str(found.metadata["nobody gets"])
    # A row that was written past the command line.
    stores.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', :template, 'de', 'x', '{{ x.y }}', 'x', 'sql'), "
        "('m1', 'loyalty_old', 'de', 'x', 'x', 'x', 'sql'), ('m1', :template, 'de-LU', 'x', 'x', 'x', 'sql')",
        template=BONUS,
    )
    found = check(instance, database_url)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert (values(found)["broken"], values(found)["unused"]) == (3, 1)
    shown = str(found.metadata["do not render"])
    for reason in ("found an attribute", "no mail has this name", "mails look for"):
        assert reason in shown
