"""What Alembic runs: the steps on the connection that `reuna.adapters.postgresql.versions` opened."""

from __future__ import annotations

from alembic import context

from reuna.adapters.postgresql.versions import SCHEMA, VERSIONS

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSIONS,
    version_table_schema=SCHEMA,
)
context.run_migrations()
