"""Alembic's environment: runs the migrations on the connection that `db.ledger.engine.Ledger.migrate` hands over.

Each migration is one transaction, so a failed one leaves the tables as they were.
"""

from alembic import context

from db.ledger.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transaction_per_migration=True,
    transactional_ddl=True,  # SQLite rolls tables back too, once transactions begin where they should
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
