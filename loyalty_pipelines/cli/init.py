"""`loyalty init`."""

import click

from loyalty_pipelines.cli.base import database, database_name, json_option
from loyalty_pipelines.cli.output import print_json, say


@click.command()
@json_option
def init(as_json: bool) -> None:
    """Install the schema, or bring it up to date. Safe to repeat, and to run twice at once."""
    with database(as_json=as_json) as engine:
        from loyalty_pipelines.db import sources
        from loyalty_pipelines.db.migrate import upgrade

        done = upgrade(engine)
        with engine.connect() as conn:
            is_outdated = sources.is_outdated(conn)
    if as_json:
        print_json({"database": database_name(), "before": done.before, "after": done.after, "changed": done.changed})
    elif not done.changed:
        say(f"The schema 'loyalty' is at version {done.after} already; nothing was changed.")
    elif done.before == done.after:
        say("The schema 'loyalty_source' was missing and was made again, without views in it.")
        say("Next: 'loyalty sources apply --file F'.")
    else:
        say(f"The schema 'loyalty' was brought from version {done.before or 'none'} to {done.after}.")
        say("Next: 'loyalty status' says what is still to do.")
    if is_outdated and not as_json and not done.is_source_schema_made:
        say("The views are of an older version: run 'loyalty sources apply --file F' again.")
        say("'loyalty sources show' prints the last mapping.")
