"""Alembic's folder: one numbered revision per change, never edited after landing."""
