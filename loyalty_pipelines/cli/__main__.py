"""`python -m loyalty_pipelines.cli` is `loyalty`."""

from loyalty_pipelines.cli import main

main(prog_name="loyalty")
