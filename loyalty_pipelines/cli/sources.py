"""`loyalty sources`: which of the shop's tables are read, and how."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.output import print_json, say
from loyalty_pipelines.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from loyalty_pipelines.domain.source_mapping import MappingProblem, SourceMapping

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def sources() -> None:
    """Map the shop's tables: presets, check, show, apply, withdraw."""


@sources.command()
@click.argument("name", required=False)
@json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the mappings to start from, or print the one called NAME."""
    from loyalty_pipelines.presets import PRESETS, read_preset

    if name is not None:
        text = read_preset(name)
        print_json({"name": name, "mapping_yaml": text}) if as_json else click.echo(text, nl=False)
    elif as_json:
        print_json([{"name": one, "shape": shape} for one, shape in PRESETS.items()])
    else:
        width = max(map(len, PRESETS))
        for one, shape in PRESETS.items():
            say(f"{one:<{width}}  {shape}")


@sources.command()
@click.option("--file", "path", type=FILE, required=True, help="The mapping, in YAML.")
@json_option
def check(path: Path, as_json: bool) -> None:
    """Name everything in a mapping that doesn't fit this database. Changes nothing."""
    from loyalty_pipelines.db import sources as source_db
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.source_mapping import SourceMappingError

    problems: list[MappingProblem]
    try:
        mapping = _parse(path)
    except SourceMappingError as error:
        problems = list(error.problems)
    else:
        with database(as_json=as_json) as engine, reading(engine) as conn:
            problems = source_db.check(conn, mapping)
    if as_json:
        print_json({"file": str(path), "problems": problems})
    elif problems:
        for problem in problems:
            say(str(problem))
        click.echo(f"Error: {_counted(problems)} in {path}; correct them and check again.", err=True)
    else:
        say(f"{path} fits; put it into force with 'loyalty sources apply --file {path}'.")
    if problems:
        click.get_current_context().exit(1)


@sources.command()
@click.option("--file", "path", type=FILE, help="A mapping: print the SQL that applying it would run.")
@json_option
def show(path: Path | None, as_json: bool) -> None:
    """Print the mapping in force, or with --file the SQL that would be applied. Changes nothing."""
    from loyalty_pipelines.db import sources as source_db
    from loyalty_pipelines.db.engine import reading

    wanted = _parse(path) if path else None
    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        if wanted:
            script = source_db.render(conn, wanted)
            print_json({"file": str(path), "sql": script}) if as_json else click.echo(script, nl=False)
            return
        mapping = source_db.require_mapping(conn, even_withdrawn=True)
    if as_json:
        relations = {name: mapping.relation(name) for name in mapping.mapped_relations}
        print_json(
            {
                "capture": mapping.capture,
                "relations": {name: str(part.relation) if part else None for name, part in relations.items()},
                "mapping_yaml": mapping.yaml_text,
            }
        )
    else:
        click.echo(mapping.yaml_text, nl=not mapping.yaml_text.endswith("\n"))


@sources.command()
@click.option("--file", "path", type=FILE, help="The mapping, in YAML.")
@click.option("--preset", help="The name of a preset, as it is.")
@json_option
def apply(path: Path | None, preset: str | None, as_json: bool) -> None:
    """Put a mapping into force: views, key functions and capture triggers, in one transaction."""
    from loyalty_pipelines.db import sources as source_db
    from loyalty_pipelines.domain.source_mapping import parse_mapping
    from loyalty_pipelines.presets import read_preset

    if (path is None) == (preset is None):
        raise click.UsageError("Name a mapping with --file F, or one that ships with --preset NAME.")
    mapping = _parse(path) if path else parse_mapping(read_preset(preset or ""))
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        applied = source_db.apply(conn, mapping)
    if as_json:
        print_json(
            {
                "applied_at": applied.applied_at,
                "capture": mapping.capture,
                "relations": list(mapping.mapped_relations),
                "triggers": applied.triggers,
                "notes": applied.notes,
            }
        )
        return
    say(f"The mapping is in force, with {', '.join(mapping.mapped_relations)}; capture by {mapping.capture}.")
    for trigger in applied.triggers:
        say(f"  trigger {trigger}")
    for one in applied.notes:
        say(f"  note: {one}")
    say("Next: 'loyalty programs list' names the merchants, 'loyalty programs set' gives one a programme.")


@sources.command()
@json_option
def withdraw(as_json: bool) -> None:
    """Let go of the shop's tables before a migration of its own; 'apply' puts everything back."""
    from loyalty_pipelines.db import sources as source_db

    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        source_db.withdraw(conn)
    if as_json:
        print_json({"withdrawn": True})
    else:
        say("The views are empty, the triggers are gone, and nothing is awarded.")
        say("Put all of it back with 'loyalty sources apply --file F'.")


def _parse(path: Path) -> "SourceMapping":
    from loyalty_pipelines.domain.source_mapping import parse_mapping

    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    return parse_mapping(text)


def _counted(problems: "list[MappingProblem]") -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
