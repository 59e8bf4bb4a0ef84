"""`loyalty init`: repeated, twice at once, by an owner without superuser rights, and against a newer database."""

import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.merchants import merchant_ids
from loyalty_pipelines.db.migrate import (
    ENSURE_SCHEMA,
    MAKE_SOURCE_SCHEMA,
    SchemaVersionError,
    _apply_revisions,
    require_current,
    upgrade,
)
from loyalty_pipelines.embedded import EmbeddedServer, start_server
from tests.checkout import Checkout
from tests.cli import Cli
from tests.conftest import administer
from tests.shop import Shop


@pytest.fixture
def empty_url(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a database without our schema."""
    name = f"empty_{uuid.uuid4().hex[:16]}"
    server.ensure_database(name)
    yield server.url(name)
    administer(server.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def test_the_first_time_installs_and_the_second_changes_nothing(empty_url: str) -> None:
    engine = connect(empty_url)
    first, second = upgrade(engine), upgrade(engine)
    assert (first.before, first.changed) == (None, True)
    assert (second.before, second.changed) == (first.after, False)
    engine.dispose()


def test_two_at_once_install_once(empty_url: str) -> None:
    results = []

    def install() -> None:
        engine = connect(empty_url)
        results.append(upgrade(engine))
        engine.dispose()

    threads = [threading.Thread(target=install) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.changed for result in results) == [False, False, False, True]


def test_code_that_is_older_than_the_database_says_so_and_changes_nothing(empty_url: str) -> None:
    engine = connect(empty_url)
    upgrade(engine)
    with engine.begin() as conn:
        conn.execute(text("UPDATE loyalty.schema_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match=r"at version 9999.*a newer release has upgraded this database"):
        upgrade(engine)
    with engine.connect() as conn, pytest.raises(SchemaVersionError, match="newer release"):
        require_current(conn)
    engine.dispose()


def test_init_makes_the_schema_of_the_views_again_when_somebody_dropped_it(database_url: str) -> None:
    administer(database_url, "DROP SCHEMA loyalty_source CASCADE")
    engine = connect(database_url)
    done = upgrade(engine)
    assert (done.before == done.after, done.changed) == (True, True)
    with engine.begin() as conn:
        sample_shop.create(conn)
        assert merchant_ids(conn) == []
    assert not upgrade(engine).changed
    engine.dispose()


def test_roles_that_somebody_else_made_are_refused_with_the_grant_that_helps(
    server: EmbeddedServer, empty_url: str
) -> None:
    name = f"admin_{uuid.uuid4().hex[:8]}"
    administer(
        empty_url,
        f"CREATE ROLE {name} LOGIN CREATEROLE",
        f"ALTER DATABASE {make_url(empty_url).database} OWNER TO {name}",
        "DO $$ BEGIN CREATE ROLE loyalty_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    line = Cli(make_url(empty_url).set(username=name).render_as_string()).refused(1, "init")
    assert f"role loyalty_owner is there already, made by somebody else, and {name} may not use it" in line
    (advice,) = re.findall(r"GRANT [^.]*", line)
    administer(empty_url, advice)
    assert Cli(make_url(empty_url).set(username=name).render_as_string()).ok("init")


def test_a_database_without_the_schema_is_told_to_run_init(empty_url: str) -> None:
    engine = connect(empty_url)
    with engine.connect() as conn, pytest.raises(SchemaVersionError, match="run 'loyalty init'"):
        require_current(conn)
    engine.dispose()


def test_an_administrator_without_superuser_rights_can_install_on_a_server_of_its_own(tmp_path: Path) -> None:
    server = start_server(tmp_path / "pg")
    server.ensure_database("shop")
    # As on a managed server: may create roles and owns the database, and that is all.
    administer(server.url("shop"), "CREATE ROLE admin LOGIN CREATEROLE", "ALTER DATABASE shop OWNER TO admin")
    engine = connect(make_url(server.url("shop")).set(username="admin").render_as_string())
    assert upgrade(engine).changed
    with engine.connect() as conn:
        require_current(conn)
    engine.dispose()
    server.stop()


def test_an_administrator_without_superuser_rights_can_install_beside_another_database(
    server: EmbeddedServer, empty_url: str
) -> None:
    url = make_url(empty_url)
    admin_name = f"admin_{uuid.uuid4().hex[:8]}"
    # As on a managed server: may create roles, owns the database, is no superuser. The roles exist there already when
    # another database of the server has the schema; then somebody has to have granted their administration.
    administer(
        empty_url,
        f"CREATE ROLE {admin_name} LOGIN CREATEROLE",
        f"ALTER DATABASE {url.database} OWNER TO {admin_name}",
        "DO $$ BEGIN CREATE ROLE loyalty_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        f"GRANT loyalty_owner TO {admin_name} WITH ADMIN OPTION",
    )
    engine = connect(url.set(username=admin_name).render_as_string())
    assert upgrade(engine).changed
    with engine.connect() as conn:
        require_current(conn)
    engine.dispose()
    administer(
        empty_url,
        f"REASSIGN OWNED BY {admin_name} TO postgres",
        f"ALTER DATABASE {url.database} OWNER TO postgres",
        f"DROP OWNED BY {admin_name}",
    )
    administer(server.url("postgres"), f"DROP ROLE {admin_name}")


def test_the_text_of_a_database_error_holds_no_bound_value(empty_url: str) -> None:
    engine = connect(empty_url)
    with engine.connect() as conn, pytest.raises(DBAPIError) as caught:
        conn.execute(text("SELECT CAST(:customer AS text), 1 / 0"), {"customer": "ann@example.com"})
    assert "ann@example.com" not in str(caught.value)
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_any_postgresql_url_is_opened_with_psycopg_3(empty_url: str, scheme: str) -> None:
    engine = connect(empty_url.replace("postgresql+psycopg", scheme))
    with engine.connect() as conn:
        assert conn.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_an_installation_of_the_first_revision_goes_on_with_its_data_and_its_mapping(empty_url: str) -> None:
    engine = connect(empty_url)
    with engine.connect() as conn:
        conn.execute(ENSURE_SCHEMA)
        _apply_revisions(conn, "0001")
        conn.exec_driver_sql(MAKE_SOURCE_SCHEMA)
        conn.commit()
    with engine.begin() as conn:
        sample_shop.create(conn)
        # The first revision's mapping gave the owner nothing.
        conn.execute(text("REVOKE ALL ON ALL TABLES IN SCHEMA loyalty_source FROM loyalty_owner"))
        conn.execute(text("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loyalty_source FROM loyalty_owner"))
        conn.execute(text("REVOKE ALL ON SCHEMA loyalty_source FROM loyalty_owner"))
    shop = Shop(engine)
    shop.merchant("m1")
    shop.run(
        "INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, next_seq) VALUES ('m1', 'ann', 100, 2); "
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', account_id, 1, "
        "'opening', 100, 0, 100, 'opening', 'ann', 1, 'test', now() FROM loyalty.accounts; "
        "INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, reason) "
        "VALUES ('m1', 'award', 'odd', 'currency_differs')"
    )
    done = upgrade(engine)
    assert (done.before, done.changed) == ("0001", True)
    shop.order("1", "30.00")
    shop.award()
    assert Checkout(engine).update("o", 5, 60) == ("m1", 5, 60, 130, 75)
    assert shop.queued() == {"odd": "currency_differs"}
    assert shop.problems() == []
    engine.dispose()


def test_an_installation_of_the_second_revision_goes_on_awarding_and_enrolls_who_is_new(empty_url: str) -> None:
    engine = connect(empty_url)
    with engine.connect() as conn:
        conn.execute(ENSURE_SCHEMA)
        _apply_revisions(conn, "0002")
        conn.exec_driver_sql(MAKE_SOURCE_SCHEMA)
        conn.commit()
    with engine.begin() as conn:
        sample_shop.create(conn)
    shop, checkout = Shop(engine), Checkout(engine)
    shop.merchant("m1", stamps_per_order=1, stamp_target=2)
    shop.run(
        "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, status, sent_at) VALUES "
        "('m1', 'a', 'loyalty_enrollment', 'ann', 'sent', now()), "
        "('m1', 'b', 'loyalty_enrollment', 'ann', 'pending', NULL)"
    )
    assert checkout.update("before", 100, 0, order_total=100, merchant_id="m1").balance_after == 100
    checkout.reserve("held", 10)
    done = upgrade(engine)
    assert (done.before, done.changed) == ("0002", True)
    shop.program(welcome_bonus_points=50, stamps_per_order=1, stamp_target=2)
    shop.order("before", "100.00")
    shop.order("1", "30.00")
    shop.order("2", "20.00", customer="bob")
    shop.award()
    assert checkout.capture("held").balance_after == 120
    assert checkout.update("o", 5, 60, "bob") == ("m1", 5, 60, 70, 15)
    assert checkout.enroll("cid") == ("cid", True, 50, 50)
    assert shop.entries() == [("earned", 100), ("earned", 30), ("redeemed", -10)]
    rows = shop.rows("SELECT customer_id, template, status FROM loyalty.notifications ORDER BY notification_id")
    assert [(row.customer_id, row.template.removeprefix("loyalty_"), row.status) for row in rows] == [
        ("ann", "enrollment", "sent"),
        ("ann", "enrollment", "pending"),
        ("bob", "enrollment", "pending"),
        ("bob", "welcome_bonus", "pending"),
        ("ann", "reward_ready", "pending"),
        ("cid", "enrollment", "pending"),
        ("cid", "welcome_bonus", "pending"),
    ]
    assert shop.problems() == []
    engine.dispose()
