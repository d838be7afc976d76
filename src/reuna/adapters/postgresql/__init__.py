"""The cloud's state in a PostgreSQL server: the `Database` of its stores, their schema, one lease.

A URL says where: ``postgresql://reuna@db.plant:5432/reuna?sslmode=verify-full``. It never holds a
password, so that no message and no backup can show one; libpq finds it (``PGPASSFILE``, ``PGPASSWORD``).
Our tables lie in the schema ``reuna``, those of the journal in ``dbos``.
"""

from __future__ import annotations

from reuna.adapters.postgresql.server import PostgresqlDatabase, where

__all__ = ["PostgresqlDatabase", "where"]
