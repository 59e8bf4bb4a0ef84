-- Alembic writes its version table before the first revision runs. Safe to repeat.
CREATE SCHEMA IF NOT EXISTS loyalty;
