"""`loyalty templates`: the mails' texts, and a merchant's own instead of the built-in ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, plain, print_json, print_table, say
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.mail_templates import LOCALES, TEMPLATES

if TYPE_CHECKING:
    from loyalty_pipelines.domain.mail_coverage import Coverage, CoverageCell, OverrideProblem
    from loyalty_pipelines.domain.mails import Mail, Override, StoredOverride

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TEMPLATE = click.Choice(list(TEMPLATES))
# A template is refused long before; this keeps a wrong file out of memory.
MAX_FILE_BYTES = 1_000_000

merchant_option = click.option(
    "--merchant", type=TEXT, help="The merchant's (none: the platform's, for all merchants)."
)
store_option = click.option("--store", type=TEXT, help="The store's; needs --merchant.")


@click.group()
def templates() -> None:
    """Look at the mails' texts, and set a merchant's or a store's own."""


@templates.command("list")
@click.argument("merchant", type=TEXT, required=False)
@json_option
def list_(merchant: str | None, as_json: bool) -> None:
    """List the built-in templates and all overrides, or those that matter for MERCHANT."""
    from loyalty_pipelines.db import mail_templates as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.mails import built_in

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=merchant is not None)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        overrides = db.stored_overrides(conn, merchant_id=merchant)
    built_ins = [built_in(template, locale) for template in TEMPLATES for locale in LOCALES]
    if as_json:
        print_json(
            {
                "built_in": [_texts(one) for one in built_ins],
                "overrides": [_override_document(one) for one in overrides],
            }
        )
        return
    print_table(
        ("template", "language", "of", "store", "subject", "set at", "by", "state"),
        [
            *(
                (one.template, one.locale, "built-in", None, _visible(one.subject), None, None, "ok")
                for one in built_ins
            ),
            *(_row(one) for one in overrides),
        ],
    )
    say(f"{counted(len(built_ins), 'built-in template')}, {counted(len(overrides), 'override')}.")


@templates.command()
@click.argument("template", type=TEMPLATE)
@click.option("--merchant", type=TEXT, help="As this merchant's customers get it.")
@click.option("--store", type=TEXT, help="As customers of this store get it; needs --merchant.")
@click.option("--locale", type=TEXT, help="The customer's locale, such as fr or de-LU (the merchant's).")
@click.option("--html", "is_html", is_flag=True, help="Print the HTML part only.")
@click.option("--source", type=click.Choice(["subject", "text", "html"]),
              help="Print this part as it is written, without values: what to start an own one from.")  # fmt: skip
@json_option
def preview(
    template: str,
    merchant: str | None,
    store: str | None,
    locale: str | None,
    is_html: bool,
    source: str | None,
    as_json: bool,
) -> None:
    """Show a mail of TEMPLATE with sample values, and which template it is.

    Exit status 1: an override that comes first does not render, and another template is shown.
    """
    from loyalty_pipelines.db import mail_templates as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.mails import first_choice, languages_of, render, sample_facts

    _require_merchant_with(store, merchant)
    if [is_html, source is not None, as_json].count(True) > 1:
        raise click.UsageError("Name one of --html, --source and --json.")
    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=merchant is not None)
        name = merchant_locale = None
        if merchant is not None:
            programs.require_merchant(conn, merchant)
            name, merchant_locale = db.merchant_facts(conn, merchant)
        overrides = db.overrides_of(conn, [merchant] if merchant else [])
    if source is not None:
        languages = languages_of(locale, merchant_locale)
        _, _, found = first_choice(template, merchant or "", store, languages, overrides)
        click.echo({"subject": found.subject, "text": found.text_body, "html": found.html_body}[source], nl=False)
        return
    mail = render(
        sample_facts(
            template,
            merchant_id=merchant or "",
            merchant_name=name,
            merchant_locale=merchant_locale,
            customer_locale=locale,
            store_id=store,
        ),
        overrides,
    )
    if as_json:
        print_json(mail)
    elif is_html:
        click.echo(mail.html)
    else:
        _print_mail(mail)
    for problem in mail.problems if not as_json else ():
        click.echo(f"Error: passed over, because it does not render: {problem}", err=True)
    if mail.problems:
        click.get_current_context().exit(1)


@templates.command("set")
@click.argument("template", type=TEMPLATE)
@click.option("--locale", type=TEXT, required=True, help="The language, such as fr; of de-LU it is de.")
@merchant_option
@store_option
@click.option("--subject", type=TEXT, required=True, help="The subject, a template as well.")
@click.option("--text", "text_path", type=FILE, required=True, help="A file with the text part.")
@click.option("--html", "html_path", type=FILE, required=True,
              help="A file with the HTML part: a document, or what stands inside the built-in frame.")  # fmt: skip
@click.option("--check", "is_check", is_flag=True, help="Only look at it and show the mail; change nothing.")
@click.option("--actor", type=TEXT, help="Who sets it, for the record (your user name).")
@json_option
def set_(
    template: str,
    locale: str,
    merchant: str | None,
    store: str | None,
    is_check: bool,
    actor: str | None,
    as_json: bool,
    **parts: Any,
) -> None:
    """Set an override of TEMPLATE in one language, or replace it.

    It may have variables, a few filters and if/elif/else; anything else is refused.
    """
    from loyalty_pipelines.db import mail_templates as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.domain.mail_coverage import unused_ones
    from loyalty_pipelines.domain.mails import Override, checked, render, sample_facts

    _require_merchant_with(store, merchant)
    override = checked(
        Override(
            merchant_id=merchant or "",
            store_id=store or "",
            template=template,
            locale=locale,
            subject=parts["subject"],
            text_body=_read(parts["text_path"]),
            html_body=_read(parts["html_path"]),
        )
    )
    is_replaced = False
    unused: Sequence[OverrideProblem] = ()
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=merchant is not None)
        name = None
        if merchant is not None:
            programs.require_merchant(conn, merchant)
            name, _ = db.merchant_facts(conn, merchant)
        if not is_check:
            is_replaced = db.set_override(conn, override, actor=actor or current_user())
            if merchant is not None:
                groups = db.customer_groups(conn, [merchant])
                unused = unused_ones([override], groups, db.overrides_of(conn, [merchant]))
    mail = render(
        sample_facts(
            template, merchant_id=merchant or "", merchant_name=name, customer_locale=override.locale, store_id=store
        ),
        [override],
    )
    if as_json:
        print_json(
            {
                "override": _texts(override),
                "is_set": not is_check,
                "is_replaced": is_replaced,
                "unused_because": unused[0].reason if unused else None,
                "preview": mail,
            }
        )
        return
    if is_check:
        _print_mail(mail)
        say("\nIt can be set: nothing was changed.")
        return
    say(f"{'Replaced' if is_replaced else 'Set'} {override.label}.")
    for one in unused:
        say(f"For now nobody gets it: {one.reason}.")


@templates.command()
@click.argument("template", type=TEXT)
@click.option("--locale", type=TEXT, required=True, help="Its language.")
@merchant_option
@store_option
@json_option
def remove(template: str, locale: str, merchant: str | None, store: str | None, as_json: bool) -> None:
    """Remove an override of TEMPLATE; customers get what comes next in the chain."""
    from loyalty_pipelines.db import mail_templates as db
    from loyalty_pipelines.domain.mails import label

    _require_merchant_with(store, merchant)
    key = {"merchant_id": merchant or "", "store_id": store or "", "template": template}
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        removed = db.remove_override(conn, locale=locale, **key)
    if as_json:
        print_json({**key, "locale": removed, "is_removed": True})
        return
    say(f"Removed {label(locale=removed, **key)}.")


@templates.command("coverage")
@click.argument("merchant", type=TEXT)
@json_option
def coverage_(merchant: str, as_json: bool) -> None:
    """Show which template MERCHANT's customers get, by language and store, and overrides that nobody gets.

    Exit status 1: an override does not render.
    """
    from loyalty_pipelines.db import mail_templates as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.mail_coverage import coverage

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn)
        programs.require_merchant(conn, merchant)
        found = coverage(merchant, db.customer_groups(conn, [merchant]), db.overrides_of(conn, [merchant]))
    if as_json:
        print_json(found)
    else:
        _print_coverage(found)
    if found.broken:
        click.get_current_context().exit(1)


def _require_merchant_with(store: str | None, merchant: str | None) -> None:
    if store is not None and merchant is None:
        raise click.UsageError("A store belongs to a merchant: name it with --merchant.")


def _read(path: Path) -> str:
    """Return a file's text; bad usage when it is too long or no text."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise click.UsageError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: is it a mail template?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not UTF-8 (byte {error.start + 1}): save it as UTF-8.") from None
    if "\x00" in text:
        raise click.UsageError(f"{path} has a NUL character, which PostgreSQL can't keep: is it a text file?")
    return text


def _texts(one: "Override") -> dict[str, str]:
    return {
        "template": one.template,
        "locale": one.locale,
        "merchant_id": one.merchant_id,
        "store_id": one.store_id,
        "subject": one.subject,
        "text_body": one.text_body,
        "html_body": one.html_body,
    }


def _override_document(one: "StoredOverride") -> dict[str, object]:
    from loyalty_pipelines.domain.mails import problem_of

    return {**plain(one), "origin": one.origin, "problem": problem_of(one)}


def _row(one: "StoredOverride") -> Sequence[object]:
    from loyalty_pipelines.domain.mails import problem_of

    problem = problem_of(one)
    return (
        one.template,
        one.locale,
        one.merchant_id or "the platform",
        one.store_id or None,
        _visible(one.subject),
        one.updated_at,
        one.updated_by,
        f"broken: {problem}" if problem else "ok",
    )


def _print_mail(mail: "Mail") -> None:
    say(f"Template: {mail.origin}, in {mail.locale}")
    say(f"Subject: {_visible(mail.subject)}\n")
    say(_visible(mail.text))


def _visible(text: str) -> str:
    """Return a mail's text as a terminal shows it: no-break spaces are no reason for escapes."""
    return text.translate({0xA0: " ", 0x202F: " "})


def _print_coverage(found: "Coverage") -> None:
    # A store without anything of its own gets what customers without a store get.
    special = {(cell.template, cell.store_id) for cell in found.cells if cell.origin == "store"}
    split = {template for template, _ in special}
    by_row: dict[tuple[str, str | None], list[CoverageCell]] = {}
    for cell in found.cells:
        if cell.store_id is None or (cell.template, cell.store_id) in special:
            by_row.setdefault((cell.template, cell.store_id), []).append(cell)
    print_table(
        ("template", "store", *found.languages),
        [
            (template, store or ("all others" if template in split else "all"), *(_taken(cell) for cell in cells))
            for (template, store), cells in by_row.items()
        ],
    )
    customers = dict.fromkeys(found.languages, 0)
    for cell in found.cells:
        if cell.template == found.cells[0].template:
            customers[cell.language] += cell.customers
    say("Customers by language: " + ", ".join(f"{name} {number:,}" for name, number in customers.items()) + ".")
    for one in found.broken:
        say(f"Broken, passed over: {one.label}: {one.reason}.")
    for one in found.unused:
        say(f"Not used: {one.label}: {one.reason}.")


def _taken(cell: "CoverageCell") -> str:
    return cell.origin if cell.language_taken == cell.language else f"{cell.origin} ({cell.language_taken})"
