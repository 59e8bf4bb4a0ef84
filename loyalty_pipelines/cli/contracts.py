"""`loyalty contracts`: what is expected of the shop's data, and whether it is so."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, is_quiet, json_option, require_ready
from loyalty_pipelines.cli.output import note, print_json, print_table, say
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS

if TYPE_CHECKING:
    from loyalty_pipelines.domain.contracts import CheckedView, Contract, ContractError

VIEW = click.Choice(list(SOURCE_RELATIONS))
view_option = click.option("--view", type=VIEW, help="Only this view's.")


# Bad rows that are named beneath an expectation; --json has more of them.
NAMED = 3


@click.group()
def contracts() -> None:
    """What is expected of the shop's data: show it, check it, write it as a site."""


@contracts.command()
@view_option
@json_option
def show(view: str | None, as_json: bool) -> None:
    """List what is expected of the views; with --view, print the file that says so."""
    from loyalty_pipelines.contracts import load_contract, load_contracts

    if view:
        one = load_contract(view)
        if as_json:
            print_json({"view": view, "file": one.file, "is_own": one.is_own, "yaml": one.yaml_text})
        else:
            click.echo(one.yaml_text, nl=not one.yaml_text.endswith("\n"))
        return
    found = load_contracts()
    rows = [
        (name, one.name, one.severity.value, one.type, contract.file)
        for name, contract in _usable(found).items()
        for one in contract.expectations
    ]
    columns = ("view", "expectation", "severity", "kind", "file")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)
    _refuse_wrong(found)


@contracts.command()
@view_option
@json_option
def check(view: str | None, as_json: bool) -> None:
    """Check the shop's data now (exit status 1: something that is an error is wrong)."""
    checked = _check(view, as_json=as_json)
    if as_json:
        print_json(checked)
    else:
        _print(checked)
    if any(one.has_errors for one in checked):
        click.get_current_context().exit(1)


@contracts.command()
@view_option
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Where the site goes; what is in it stays unless it is written anew.")  # fmt: skip
@json_option
def docs(view: str | None, folder: Path, as_json: bool) -> None:
    """Check the shop's data and write Great Expectations' Data Docs to a folder, for a browser."""
    from loyalty_pipelines.domain.errors import ConfigurationError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write to {folder}: {error.strerror}; name another folder with --to."
        ) from error
    checked = _check(view, as_json=as_json, folder=folder)
    index = folder / "index.html"
    if as_json:
        print_json({"index": str(index), "views": checked})
    else:
        for one in checked:
            say(one.text)
        say(f"Open {index}.")


def _check(view: str | None, *, as_json: bool, folder: Path | None = None) -> "list[CheckedView]":
    from loyalty_pipelines.contracts import load_contracts

    found = load_contracts()
    wanted = {name: contract for name, contract in found.items() if view in (None, name)}
    with database(as_json=as_json) as engine:
        with engine.connect() as conn:
            require_ready(conn)
        if not (as_json or is_quiet()):
            note("Great Expectations needs some seconds to start.")
        from loyalty_pipelines.resources.source_contracts import check_contracts

        return check_contracts(engine, wanted, docs=folder)


def _print(checked: "list[CheckedView]") -> None:
    from loyalty_pipelines.domain.contracts import in_words

    for view in checked:
        say(view.text)
        for one in view.results:
            if not one.is_met and view.problem is None:
                say(f"  {one.severity.value}: {one.name}: {one.text}")
                for row in one.sample[:NAMED]:
                    say(f"    {in_words(row)}")


def _usable(found: "Mapping[str, Contract | ContractError]") -> "dict[str, Contract]":
    from loyalty_pipelines.domain.contracts import Contract

    return {name: one for name, one in found.items() if isinstance(one, Contract)}


def _refuse_wrong(found: "Mapping[str, Contract | ContractError]") -> None:
    """Raise the first contract that can't be used."""
    from loyalty_pipelines.domain.contracts import ContractError

    for one in found.values():
        if isinstance(one, ContractError):
            raise one
