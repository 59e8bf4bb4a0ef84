"""`loyalty metrics`: printed, into a file, to a Pushgateway."""

import base64
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.metrics import read_metrics
from loyalty_pipelines.domain.metrics_push import PushFailedError, push_settings
from loyalty_pipelines.resources.prometheus import push
from tests.cli import Cli
from tests.metrics import parsed
from tests.pushgateway import Pushgateway, pushgateway
from tests.shop import Shop

VARIABLE = "LOYALTY_METRICS_PUSH_URL"


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def gateway() -> Iterator[Pushgateway]:
    with pushgateway() as made:
        yield made


def dead_url() -> str:
    """Return the address of a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def failure_of(shop: Shop, url: str, *, longest_seconds: float = 10) -> str:
    """Push to a gateway that does not take it; return what is said about it."""
    with reading(shop.engine) as conn:
        measured = read_metrics(conn)
    with pytest.raises(PushFailedError) as caught:
        push(measured, push_settings({VARIABLE: url}), longest_seconds=longest_seconds)
    return str(caught.value)


def test_metrics_are_printed_and_nothing_else_is(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    printed = cli.ok("metrics")
    assert parsed(printed.out)["loyalty_liability_points"] == {("m1",): 10}
    assert printed.out.startswith("# HELP ")
    assert printed.out.endswith("\n")
    assert not printed.out.endswith("\n\n")
    assert "database: " in printed.err


def test_ids_are_printed_as_they_are_and_not_made_printable(cli: Cli, shop: Shop) -> None:
    merchant = 'm"\\\n\t\x1b[31m é€'
    shop.merchant(merchant)
    shop.order("1", "10.00", merchant=merchant)
    shop.award()
    assert parsed(cli.ok("metrics").out)["loyalty_liability_points"] == {(merchant,): 10}


def test_one_merchants_metrics(cli: Cli, shop: Shop) -> None:
    shop.merchant("m2")
    for merchant in ("m1", "m2"):
        shop.order("1", "10.00", merchant=merchant)
    assert parsed(cli.ok("metrics", "--merchant", "m2").out)["loyalty_inbox_orders"] == {("m2",): 1}
    assert "m3" in cli.refused(1, "metrics", "--merchant", "m3")


def test_before_a_shop_is_mapped_there_are_metrics(cli: Cli) -> None:
    assert parsed(cli.ok("metrics").out)["loyalty_mapping_in_force"] == {(): 0}
    assert parsed(cli.ok("metrics", "--merchant", "m1").out)["loyalty_accounts"] == {}


def test_a_file_is_replaced_as_a_whole_and_may_be_read_by_all(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "loyalty.prom"
    path.write_text("former")
    former = path.stat().st_ino
    with path.open() as reader:
        umask = os.umask(0o077)
        try:
            assert cli.ok("metrics", "--output", path).out == ""
        finally:
            os.umask(umask)
        assert reader.read() == "former", "who has opened it reads the former one to its end"
    assert path.stat().st_ino != former
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert parsed(path.read_text())["loyalty_mapping_in_force"] == {(): 1}
    assert list(tmp_path.iterdir()) == [path]


def test_on_an_error_the_file_stays_as_it_was(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "loyalty.prom"
    path.write_text("former")
    shop.run("DROP VIEW loyalty.metrics_queue")
    assert "loyalty.metrics_queue" in cli.refused(1, "metrics", "--output", path)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    line = cli.refused(1, "metrics", "--output", tmp_path / "none" / "loyalty.prom")
    assert "none/loyalty.prom" in line
    assert "No such file or directory" in line
    (tmp_path / "a-folder").mkdir()
    assert "is a directory" in cli.refused(2, "metrics", "--output", tmp_path / "a-folder")


def test_an_older_schema_is_told_to_run_init(cli: Cli, shop: Shop) -> None:
    shop.run("UPDATE loyalty.schema_version SET version_num = '0001'")
    assert "loyalty init" in cli.refused(1, "metrics")


# --- push ---


def test_what_is_pushed_is_what_is_printed(
    cli: Cli, shop: Shop, gateway: Pushgateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.order("1", "10.00")
    shop.award()
    monkeypatch.setenv(VARIABLE, gateway.url())
    assert cli.ok("metrics", "push").out == f"Pushed to {gateway.url()}.\n"
    (pushed,) = gateway.pushed
    # PUT replaces all of the group.
    assert (pushed.method, pushed.path) == ("PUT", "/metrics/job/loyalty_pipelines")
    assert "Authorization" not in pushed.headers
    printed, taken = parsed(cli.ok("metrics").out), parsed(pushed.body)
    assert set(taken) == set(printed)
    assert taken["loyalty_liability_points"] == printed["loyalty_liability_points"] == {("m1",): 10}


def test_user_and_password_are_sent_and_never_said(
    cli: Cli, shop: Shop, gateway: Pushgateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url(login="ops:p%40ss%2Fw%C3%B6rd", path="/gate/"))
    pushed = cli.ok("metrics", "push")
    assert pushed.out == f"Pushed to {gateway.url(path='/gate')}.\n"
    assert gateway.pushed[0].path == "/gate/metrics/job/loyalty_pipelines"
    login = gateway.pushed[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(login).decode() == "ops:p@ss/wörd"
    gateway.status, gateway.answer = 401, "who are you?\nreally"
    line = cli.refused(1, "metrics", "push")
    assert "it answered 401 Unauthorized (who are you?)" in line
    assert not any(word in line + pushed.out + pushed.err for word in ("ops", "p%40ss", "p@ss"))


def test_a_gateway_that_is_not_there_is_named_with_what_to_do(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dead_url()
    monkeypatch.setenv(VARIABLE, url.replace("//", "//ops:secret@"))
    line = cli.refused(1, "metrics", "push")
    assert f"The Pushgateway at {url} did not take the metrics: [Errno" in line
    assert "Connection refused" in line
    assert "secret" not in line


def test_a_gateway_that_never_ends_its_answer_is_left(shop: Shop, gateway: Pushgateway) -> None:
    gateway.is_dripping = True
    assert "no whole answer within 0.3 s" in failure_of(shop, gateway.url(), longest_seconds=0.3)
    assert len(gateway.pushed) == 1


def test_what_the_gateway_finds_wrong_is_said(shop: Shop, gateway: Pushgateway) -> None:
    gateway.status, gateway.answer = 400, "pushed metrics are invalid"
    assert "it answered 400 Bad Request (pushed metrics are invalid)" in failure_of(shop, gateway.url())
    gateway.status, gateway.answer = 500, ""
    assert "it answered 500 Internal Server Error." in failure_of(shop, gateway.url())


def test_a_redirection_is_not_followed_to_where_nobody_sent_the_password(shop: Shop, gateway: Pushgateway) -> None:
    gateway.status = 307
    assert "it answered 307" in failure_of(shop, gateway.url(login="ops:secret"))


def test_without_an_address_nothing_is_pushed(cli: Cli, shop: Shop) -> None:
    assert f"{VARIABLE} is not set: expected the address of a Pushgateway" in cli.refused(1, "metrics", "push")


def test_a_push_is_of_all_merchants(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    assert "takes neither --merchant nor --output" in cli.refused(2, "metrics", "--merchant", "m1", "push")
    assert "takes neither" in cli.refused(2, "metrics", "--output", tmp_path / "x.prom", "push")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_by_hand_is_noted_and_a_dry_one_is_not(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10.00")
    for options in (["--dry-run"], []):
        cli.ok("award", *options)
    cli.ok("award", "--sweep", "--dry-run")
    assert shop.rows("SELECT * FROM loyalty.merchant_jobs") == []
    cli.ok("award", "--sweep")
    (row,) = shop.rows("SELECT * FROM loyalty.merchant_jobs")
    assert (row.merchant_id, row.job, row.failed_at) == ("m1", "awarded_points", None)
    assert row.succeeded_at
