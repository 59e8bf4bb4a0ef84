"""What becomes of views, and of a sample shop, that an earlier version made."""

import pytest
from sqlalchemy import Connection, Engine

from loyalty_pipelines.db import demo, order_files, sample_shop, sources
from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.domain.source_mapping import NoMappingError, OutdatedViewsError, SourceMapping, parse_mapping
from tests.cli import Cli
from tests.shops import create_django_shop, mapping_of


def older_mapping() -> SourceMapping:
    """The sample shop's mapping as it was before it sold plans."""
    today = sample_shop.mapping().yaml_text
    text = today[: today.index("payments:\n")]
    for line in ("plan_id: plan_id", "discount_amount: discount", "points_discount_amount: points_discount"):
        assert text.count(f"    {line}\n") == 1
        text = text.replace(f"    {line}\n", "")
    return parse_mapping(text)


def make_older_shop(conn: Connection) -> None:
    """A sample shop, its mapping and its views as an earlier version made them, with an order."""
    conn.exec_driver_sql(sample_shop.CREATE)
    for table in ("plans", "subscriptions", "payments"):
        conn.exec_driver_sql(f"DROP TABLE sample_shop.{table}")
    conn.exec_driver_sql("DROP INDEX sample_shop.orders_by_customer")
    sources.apply(conn, older_mapping())
    make_older_views(conn)
    conn.exec_driver_sql(
        "ALTER TABLE sample_shop.orders DROP COLUMN plan_id, DROP COLUMN discount, DROP COLUMN points_discount"
    )
    conn.exec_driver_sql("INSERT INTO sample_shop.merchants VALUES ('m', 'M', 'UTC', 'EUR')")
    conn.exec_driver_sql("INSERT INTO sample_shop.orders (merchant_id, id, total) VALUES ('m', '1', 5)")


def make_older_views(conn: Connection) -> None:
    """Take from the views what later versions added."""
    conn.exec_driver_sql("DROP FUNCTION loyalty_source.payments_by_ids(text[], text[])")
    definition = conn.exec_driver_sql("SELECT pg_get_viewdef('loyalty_source.orders')").scalar_one()
    first = definition.index("AS source_status") + len("AS source_status")
    conn.exec_driver_sql("DROP VIEW loyalty_source.orders")
    conn.exec_driver_sql(
        "CREATE VIEW loyalty_source.orders AS " + definition[:first] + " " + definition[definition.index("FROM") :],
        execution_options={"no_parameters": True},
    )


def test_views_of_an_older_version_are_told_to_be_made_again(engine: Engine):
    with engine.begin() as conn:
        with pytest.raises(NoMappingError):
            sources.require_columns(conn)
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        sources.require_columns(conn)
        assert not sources.is_outdated(conn)
        make_older_views(conn)
        assert sources.is_outdated(conn)
        with pytest.raises(OutdatedViewsError, match="run 'loyalty sources apply --file F' again"):
            sources.require_columns(conn)
        sources.apply(conn, mapping_of("django_shop"))
        sources.require_columns(conn)
        # One of both would do, and one alone is not enough.
        conn.exec_driver_sql("DROP FUNCTION loyalty_source.payments_by_ids(text[], text[])")
        assert sources.is_outdated(conn)
        sources.withdraw(conn)
        assert not sources.is_outdated(conn)


def test_init_says_when_the_views_are_of_an_older_version(engine: Engine, database_url: str):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
    cli = Cli(database_url)
    assert "older version" not in cli.ok("init").out
    with engine.begin() as conn:
        make_older_views(conn)
    assert "The views are of an older version: run 'loyalty sources apply --file F' again." in cli.ok("init").out
    assert cli.ok("init", "--json").document["changed"] is False


@pytest.mark.parametrize("prepare", [lambda conn: demo.prepare(conn, merchants=1), order_files.prepare])
def test_a_sample_shop_of_an_older_version_gets_what_is_new_and_keeps_its_rows(engine: Engine, prepare):
    with engine.begin() as conn:
        make_older_shop(conn)
        assert sources.is_outdated(conn)
        prepare(conn)
        sources.require_columns(conn)
        assert sources.current(conn) == sample_shop.mapping()
        row = conn.exec_driver_sql("SELECT order_id, plan_id, discount_amount FROM loyalty_source.orders").one()
        assert tuple(row) == ("1", None, 0)
        assert conn.exec_driver_sql("SELECT count(*) FROM loyalty_source.plans").scalar_one() == 0
        # And once is enough.
        query = "SELECT count(*) FROM loyalty.source_mapping"
        before = conn.exec_driver_sql(query).scalar_one()
        prepare(conn)
        assert conn.exec_driver_sql(query).scalar_one() == before


def test_a_shop_that_is_not_the_sample_shop_is_still_refused(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        with pytest.raises(ConfigurationError, match="reads a shop of its own"):
            demo.prepare(conn, merchants=1)


def test_a_sample_shop_whose_operator_changed_its_mapping_keeps_it(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        polled = parse_mapping(sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll"))
        sources.apply(conn, polled)
        order_files.prepare(conn)
        assert sources.current(conn) == polled
