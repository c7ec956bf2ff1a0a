"""Alembic migrations. Rows are never rewritten by one: what was recorded keeps its meaning and its hash."""
