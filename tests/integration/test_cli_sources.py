"""`loyalty sources`."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.presets import PRESETS, read_preset
from tests.cli import Cli
from tests.shop import Shop
from tests.shops import create_django_shop


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def django(engine: Engine) -> None:
    with engine.begin() as conn:
        create_django_shop(conn)


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(read_preset("django_shop"), encoding="utf-8")
    return path


@pytest.fixture
def broken_file(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    text = read_preset("django_shop").replace("total_amount: total", "total_amount: totl")
    path.write_text(text.replace("relation: public.crm_contact", "relation: public.contacts"), encoding="utf-8")
    return path


def test_presets_are_listed_and_printed_as_they_are(cli: Cli) -> None:
    listed = cli.ok("sources", "presets").out
    assert all(name in listed for name in PRESETS)
    assert [one["name"] for one in cli.ok("sources", "presets", "--json").document] == list(PRESETS)
    assert cli.ok("sources", "presets", "django_shop").out == read_preset("django_shop")
    assert "found no preset 'shopify'" in cli.refused(1, "sources", "presets", "shopify")


def test_check_says_that_a_mapping_fits(cli: Cli, django: None, mapping_file: Path) -> None:
    assert "fits" in cli.ok("sources", "check", "--file", mapping_file).out
    assert cli.ok("sources", "check", "--file", mapping_file, "--json").document["problems"] == []


def test_check_names_every_problem_on_a_line_of_its_own(cli: Cli, django: None, broken_file: Path) -> None:
    found = cli.run("sources", "check", "--file", broken_file)
    assert found.status == 1
    lines = found.out.splitlines()
    assert len(lines) == 2
    assert any('found no column "totl"' in line and 'did you mean "total"' in line for line in lines)
    assert f"2 problems in {broken_file}" in found.err
    document = cli.run("sources", "check", "--file", broken_file, "--json")
    assert document.status == 1
    assert {one["path"] for one in document.document["problems"]} == {
        "orders.columns.total_amount", "customers.relation",
    }  # fmt: skip


def test_check_names_what_is_wrong_with_the_file_itself(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("version: 1\ncapture: never\n", encoding="utf-8")
    found = cli.run("sources", "check", "--file", path)
    assert found.status == 1
    assert len(found.out.splitlines()) >= 2
    path.write_bytes(b"version: \xff")
    assert "is not UTF-8 at byte 9" in cli.refused(1, "sources", "check", "--file", path)
    assert "does not exist" in cli.refused(2, "sources", "check", "--file", tmp_path / "none.yaml")


def test_show_prints_the_sql_and_changes_nothing(cli: Cli, django: None, mapping_file: Path) -> None:
    script = cli.ok("sources", "show", "--file", mapping_file).out
    assert "VIEW " in script
    # The runner, not the command, turns the script's own carriage returns into line ends.
    document = cli.ok("sources", "show", "--file", mapping_file, "--json").document
    assert document["sql"].replace("\r\n", "\n") == script
    assert "No source mapping is in force" in cli.refused(1, "sources", "show")


def test_apply_puts_a_file_into_force_and_show_prints_it(cli: Cli, django: None, mapping_file: Path) -> None:
    text = cli.ok("sources", "apply", "--file", mapping_file).out
    assert "The mapping is in force" in text
    assert "loyalty_capture_orders_insert on public.orders_order" in text
    assert cli.ok("sources", "show").out == read_preset("django_shop")
    shown = cli.ok("sources", "show", "--json").document
    assert shown["relations"]["orders"] == "public.orders_order"
    again = cli.ok("sources", "apply", "--file", mapping_file, "--json").document
    assert again["capture"] == "trigger"


def test_apply_takes_a_preset_by_name(cli: Cli, django: None) -> None:
    assert "orders" in cli.ok("sources", "apply", "--preset", "django_shop", "--json").document["relations"]


def test_apply_wants_either_a_file_or_a_preset(cli: Cli, mapping_file: Path) -> None:
    assert "--preset NAME" in cli.refused(2, "sources", "apply")
    assert "--preset NAME" in cli.refused(2, "sources", "apply", "--file", mapping_file, "--preset", "django_shop")


def test_apply_refuses_what_does_not_fit_and_names_all_of_it(cli: Cli, django: None, broken_file: Path) -> None:
    assert "2 problems" in cli.refused(1, "sources", "apply", "--file", broken_file)
    assert "- orders.columns.total_amount" in cli.run("sources", "apply", "--file", broken_file).err
    assert "No source mapping is in force" in cli.refused(1, "sources", "show")


def test_apply_gives_up_when_the_shop_holds_its_table(
    cli: Cli, django: None, mapping_file: Path, engine: Engine
) -> None:
    with engine.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE public.orders_order IN ACCESS EXCLUSIVE MODE")
        line = cli.refused(1, "sources", "apply", "--file", mapping_file)
    assert "Another transaction is in the way" in line


def test_withdraw_empties_the_views_and_holds_everything_until_the_mapping_is_applied_again(
    cli: Cli, shop: Shop, tmp_path: Path
) -> None:
    shop.order("queued", "NaN")
    shop.order("1", "10")
    assert cli.run("award").status == 1
    shop.order("2", "5")
    assert cli.ok("sources", "withdraw", "--json").document == {"withdrawn": True}
    assert "nothing is awarded" in cli.ok("sources", "withdraw").out
    assert shop.value("SELECT count(*) FROM loyalty_source.merchants") == 0
    for words in (["award"], ["award", "--dry-run"], ["award", "--sweep"], ["award", "--sweep", "--dry-run"]):
        assert "The source mapping is withdrawn" in cli.refused(1, *words)
    assert "The source mapping is withdrawn" in cli.run("status").out
    assert "balance" in cli.ok("account", "show", "m1", "ann").out.lower()
    assert (shop.inbox(), shop.queued()) == (1, {"queued": "amount_invalid"})
    path = tmp_path / "shop.yaml"
    path.write_text(cli.ok("sources", "show").out)
    cli.ok("sources", "apply", "--file", path)
    shop.change("queued", total="1")
    cli.ok("award")
    assert (shop.balance(), shop.queued(), shop.problems()) == (16, {}, [])
