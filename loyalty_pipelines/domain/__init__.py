"""Plain rules and types: no I/O, no SQL, no Dagster."""
