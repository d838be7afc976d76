"""Steps of the schema, carried out by Alembic in one transaction."""
