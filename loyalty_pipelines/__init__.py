"""Loyalty Pipelines: merchants' loyalty points on Dagster and PostgreSQL, awarded exactly once."""
