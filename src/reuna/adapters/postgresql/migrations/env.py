"""What Alembic runs: the steps on the connection that `reuna.adapters.postgresql.versions` opened."""

from __future__ import annotations

from alembic import context

from reuna.adapters.postgresql.versions import SCHEMA, VERSIONS

if (config := getattr(context, "config", None)) is not None:  # Alembic has it only while it runs this file
    connection = config.attributes["connection"]
    context.configure(connection=connection, version_table=VERSIONS, version_table_schema=SCHEMA)
    context.run_migrations()
