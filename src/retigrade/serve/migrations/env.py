"""Alembic's entry: run the migrations on the connection that `retigrade.serve.database` hands over."""

from alembic import context

from retigrade.serve.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
