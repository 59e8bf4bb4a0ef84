"""`loyalty templates`: looking at mails, and setting a merchant's own."""

from pathlib import Path

import pytest

from tests.cli import Cli
from tests.shop import Shop

EXPIRING = "loyalty_points_expiring"


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def files(tmp_path: Path) -> list[str | Path]:
    """The parts of a right override, as options."""
    return parts(tmp_path, "{{ points }} points until {{ last_day }}", "<p>{{ points }} points</p>")


def parts(
    folder: Path, text: str | bytes, html: str | bytes, subject: str = "Hi {{ customer_name }}"
) -> list[str | Path]:
    for name, content in (("mail.txt", text), ("mail.html", html)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return ["--subject", subject, "--text", folder / "mail.txt", "--html", folder / "mail.html"]


def customer(shop: Shop, name: str, locale: str | None) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id, locale) VALUES ('m1', :id, :locale)",
             id=name, locale=locale)  # fmt: skip


def test_the_list_has_the_twenty_built_ins_and_the_overrides(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    found = cli.ok("templates", "list")
    assert "20 built-in templates, 0 overrides." in found.out
    assert "\\x" not in found.out
    cli.ok("templates", "set", EXPIRING, "--locale", "fr", "--merchant", "m1", "--store", "s1", *files)
    cli.ok("templates", "set", EXPIRING, "--locale", "fr", *files)
    shop.merchant("m2")
    document = cli.ok("templates", "list", "m1", "--json").document
    assert len(document["built_in"]) == 20
    assert [(one["merchant_id"], one["store_id"], one["origin"], one["problem"]) for one in document["overrides"]] == [
        ("", "", "platform", None),
        ("m1", "s1", "store", None),
    ]
    assert document["overrides"][1]["text_body"] == "{{ points }} points until {{ last_day }}"
    assert len(cli.ok("templates", "list", "m2", "--json").document["overrides"]) == 1
    assert "20 built-in templates, 2 overrides." in cli.ok("templates", "list").out
    assert "did you mean 'm1'" in cli.refused(1, "templates", "list", "m11")


def test_the_list_says_which_override_is_broken(cli: Cli, shop: Shop) -> None:
    shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'loyalty_enrollment', 'en', 'x', '{{ points }}', 'x', 'sql')"
    )
    (one,) = cli.ok("templates", "list", "--json").document["overrides"]
    assert one["problem"] == "text: line 1: found the variable 'points'"
    assert "found the variable" in cli.ok("templates", "list").out.replace("\n", "")


def test_a_preview_needs_no_merchant_and_no_mapping(cli: Cli) -> None:
    found = cli.ok("templates", "preview", EXPIRING, "--locale", "de-LU").out
    assert found.startswith("Template: built-in, in de\nSubject: Ihre Punkte bei Sample Shop verfallen bald\n\n")
    assert "Guten Tag Ann Example," in found
    assert "14. März 2027" in found
    assert "14 March 2027" in cli.ok("templates", "preview", EXPIRING).out
    french = cli.ok("templates", "preview", EXPIRING, "--locale", "fr").out
    assert "Points concernés : 1 250" in french


def test_a_preview_shows_which_template_a_customer_gets(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    shop.run("UPDATE sample_shop.merchants SET name = 'Corner', locale = 'fr' WHERE id = 'm1'")
    cli.ok("templates", "set", EXPIRING, "--locale", "fr", "--merchant", "m1", "--store", "s1", *files)
    at_m1 = ["templates", "preview", EXPIRING, "--merchant", "m1"]
    mail = cli.ok(*at_m1, "--store", "s1", "--locale", "pt", "--json").document
    assert (mail["origin"], mail["locale"], mail["problems"]) == ("store", "fr", [])
    assert mail["text"] == "1 250 points until 14 mars 2027".replace(" 250", "\u202f250")
    assert mail["subject"] == "Hi Ann Example"
    mail = cli.ok(*at_m1, "--json").document
    assert (mail["origin"], mail["locale"]) == ("built-in", "fr")
    assert "Corner" in mail["subject"]
    html = cli.ok(*at_m1, "--store", "s1", "--html").out
    assert html.startswith('<!DOCTYPE html>\n<html lang="fr" dir="ltr">')
    assert "did you mean 'm1'" in cli.refused(1, "templates", "preview", EXPIRING, "--merchant", "m11")
    assert "name it with --merchant" in cli.refused(2, "templates", "preview", EXPIRING, "--store", "s1")
    assert "one of --html, --source and --json" in cli.refused(2, *at_m1, "--html", "--json")
    assert "'loyalty_x' is not one of" in cli.refused(2, "templates", "preview", "loyalty_x")


def test_an_own_template_starts_from_the_source_of_the_one_in_use(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    show = ["templates", "preview", EXPIRING, "--merchant", "m1", "--locale", "de", "--source"]
    for name, part in (("mail.txt", "text"), ("mail.html", "html")):
        (tmp_path / name).write_text(cli.ok(*show, part).out)
    subject = cli.ok(*show, "subject").out
    assert subject == "Ihre Punkte bei {{ merchant_name }} verfallen bald"
    before = cli.ok(*show[:-1], "--json").document
    options = ["--subject", subject, "--text", tmp_path / "mail.txt", "--html", tmp_path / "mail.html"]
    cli.ok("templates", "set", EXPIRING, "--merchant", "m1", "--locale", "de", *options)
    assert cli.ok(*show[:-1], "--json").document == {**before, "origin": "merchant"}
    options[1] = "{{ merchant_name }}, Filiale"
    cli.ok("templates", "set", EXPIRING, "--merchant", "m1", "--store", "s1", "--locale", "de", *options)
    assert cli.ok(*show, "subject").out == subject
    assert cli.ok(*show, "subject", "--store", "s1").out == "{{ merchant_name }}, Filiale"


def test_a_preview_that_passes_a_broken_override_over_says_so_and_fails(cli: Cli, shop: Shop) -> None:
    shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'loyalty_enrollment', 'en', 'x', '{{ x }}', 'x', 'sql'), "
        "('', 'loyalty_reward_ready', 'en', 'x', '{{ x }}', 'x', 'sql')"
    )
    platform = cli.run("templates", "preview", "loyalty_reward_ready", "--json")
    assert (platform.status, len(platform.document["problems"])) == (1, 1)
    line = cli.refused(1, "templates", "preview", "loyalty_enrollment", "--merchant", "m1")
    assert "passed over" in line
    assert "found the variable 'x'" in line
    mail = cli.run("templates", "preview", "loyalty_enrollment", "--merchant", "m1", "--json")
    assert (mail.status, mail.document["origin"], len(mail.document["problems"])) == (1, "built-in", 1)


def test_setting_and_removing_an_override_takes_effect_at_once(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    customer(shop, "ann", "de")
    key = [EXPIRING, "--locale", "de-LU", "--merchant", "m1"]
    assert cli.ok("templates", "set", *key, *files).out == f"Set {EXPIRING} in 'de' of merchant 'm1'.\n"
    assert cli.ok("templates", "set", *key, *files).out.startswith("Replaced ")
    document = cli.ok("templates", "set", *key, *files, "--actor", "me", "--json").document
    assert (document["is_set"], document["is_replaced"], document["unused_because"]) == (True, True, None)
    assert document["override"]["locale"] == "de"
    assert document["preview"]["origin"] == "merchant"
    assert shop.value("SELECT updated_by FROM loyalty.mail_templates") == "me"
    assert cli.ok("templates", "remove", *key).out == f"Removed {EXPIRING} in 'de' of merchant 'm1'.\n"
    assert "'loyalty templates list m1' shows" in cli.refused(1, "templates", "remove", *key)
    cli.ok("templates", "set", *key, *files)
    assert cli.ok("templates", "remove", *key, "--json").document["is_removed"]
    assert shop.value("SELECT count(*) FROM loyalty.mail_templates") == 0


def test_the_platforms_override_is_set_without_a_merchant(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    assert cli.ok("templates", "set", EXPIRING, "--locale", "pt", *files).out == (
        f"Set {EXPIRING} in 'pt' of the platform.\n"
    )
    mail = cli.ok("templates", "preview", EXPIRING, "--merchant", "m1", "--locale", "pt-BR", "--json").document
    assert (mail["origin"], mail["locale"]) == ("platform", "pt")


def test_an_override_that_nobody_gets_is_set_and_said_to_be_nobodys(
    cli: Cli, shop: Shop, files: list[str | Path]
) -> None:
    customer(shop, "ann", "de")
    out = cli.ok("templates", "set", EXPIRING, "--locale", "de", "--merchant", "m1", "--store", "s9", *files).out
    assert "For now nobody gets it: no active customer is in this store." in out
    assert shop.value("SELECT count(*) FROM loyalty.mail_templates") == 1


def test_a_check_shows_the_mail_and_changes_nothing(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    out = cli.ok("templates", "set", EXPIRING, "--locale", "de", "--merchant", "m1", "--check", *files).out
    assert "Subject: Hi Ann Example\n\n1.250 points until 14. März 2027\n" in out
    assert "nothing was changed" in out
    document = cli.ok("templates", "set", EXPIRING, "--locale", "de", "--check", "--json", *files).document
    assert not document["is_set"]
    assert shop.value("SELECT count(*) FROM loyalty.mail_templates") == 0


@pytest.mark.parametrize(
    ("text", "html", "subject", "status", "said"),
    [
        (
            "{{ ''.__class__ }}",
            "x",
            "x",
            1,
            "The text of loyalty_points_expiring is refused: line 1: found an attribute",
        ),
        ("x", "a\n{% for x in points %}{% endfor %}", "x", 1, "The HTML of loyalty_points_expiring is refused: line 2"),
        ("x", "x", "{{ stamps }}", 1, "The subject of loyalty_points_expiring is refused: line 1: found the variable"),
        (b"\xff\xfe", "x", "x", 2, "mail.txt is not UTF-8 (byte 1): save it as UTF-8."),
        ("x", "a\x00b", "x", 2, "mail.html has a NUL character"),
        ("x" * 1_000_001, "x", "x", 2, "more than 1,000,000 bytes"),
        (" ", "x", "x", 1, "it is empty with sample values"),
    ],
)
def test_a_template_that_is_not_right_is_refused_and_not_written(
    cli: Cli, shop: Shop, tmp_path: Path, text: str | bytes, html: str, subject: str, status: int, said: str
) -> None:
    options = parts(tmp_path, text, html, subject)
    assert said in cli.refused(status, "templates", "set", EXPIRING, "--locale", "en", "--merchant", "m1", *options)
    assert shop.value("SELECT count(*) FROM loyalty.mail_templates") == 0


def test_wrong_keys_are_refused(cli: Cli, shop: Shop, files: list[str | Path]) -> None:
    assert "'xx' is no language" in cli.refused(1, "templates", "set", EXPIRING, "--locale", "xx", *files)
    assert "did you mean 'm1'" in cli.refused(
        1, "templates", "set", EXPIRING, "--locale", "en", "--merchant", "m11", *files
    )
    assert "name it with --merchant" in cli.refused(
        2, "templates", "set", EXPIRING, "--locale", "en", "--store", "s1", *files
    )
    assert "does not exist" in cli.refused(
        2, "templates", "set", EXPIRING, "--locale", "en", "--subject", "x", "--text", "/nowhere", "--html", "/nowhere"
    )


def test_a_file_with_a_byte_order_mark_is_read_without_it(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    options = parts(tmp_path, b"\xef\xbb\xbfhello", "x")
    cli.ok("templates", "set", EXPIRING, "--locale", "en", *options)
    assert shop.value("SELECT text_body FROM loyalty.mail_templates") == "hello"


def test_the_coverage_shows_languages_stores_fallbacks_and_unused_overrides(
    cli: Cli, shop: Shop, files: list[str | Path]
) -> None:
    customer(shop, "ann", "de")
    customer(shop, "bob", "it")
    for key in (["--locale", "de"], ["--locale", "pt"], ["--locale", "de", "--store", "s9"]):
        cli.ok("templates", "set", EXPIRING, *key, "--merchant", "m1", *files)
    out = cli.ok("templates", "coverage", "m1").out
    lines = [line.split() for line in out.splitlines() if line.strip().startswith("loyalty_")]
    rows = {tuple(line[:2]): line[2:] for line in lines}
    header = next(line for line in out.splitlines() if "template" in line).split()
    assert header == ["template", "store", "en", "fr", "de", "lb", "it", "pt"]
    assert rows[EXPIRING, "s9"] == ["built-in", "built-in", "store", "built-in", "built-in", "(en)", "merchant"]
    assert rows[EXPIRING, "all"] == [
        "others",
        "built-in",
        "built-in",
        "merchant",
        "built-in",
        "built-in",
        "(en)",
        "merchant",
    ]
    assert len(rows) == 6
    assert rows["loyalty_enrollment", "all"][:2] == ["built-in", "built-in"]
    assert "Customers by language: en 0, fr 0, de 1, lb 0, it 1, pt 0." in out
    assert f"Not used: {EXPIRING} in 'pt' of merchant 'm1': nobody gets this mail in 'pt'" in out
    assert f"Not used: {EXPIRING} in 'de' of store 's9' of merchant 'm1': no active customer is in this store." in out
    document = cli.ok("templates", "coverage", "m1", "--json").document
    assert len(document["cells"]) == 5 * 2 * 6
    assert len(document["unused"]) == 2
    assert document["broken"] == []
    assert "did you mean 'm1'" in cli.refused(1, "templates", "coverage", "m11")


def test_the_coverage_passes_broken_overrides_over_and_fails(cli: Cli, shop: Shop) -> None:
    customer(shop, "ann", "de")
    shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'loyalty_enrollment', 'de', 'x', '{{ x }}', 'x', 'sql')"
    )
    found = cli.run("templates", "coverage", "m1")
    assert found.status == 1
    assert (
        "Broken, passed over: loyalty_enrollment in 'de' of merchant 'm1': text: line 1: found the variable"
        in found.out
    )
    cells = cli.run("templates", "coverage", "m1", "--json").document["cells"]
    assert {one["origin"] for one in cells} == {"built-in"}
