"""Alembic environment: runs the migrations on the connection passed by `db.ledger.engine.Ledger.migrate`.

Each migration is one transaction, so a failed one leaves the tables unchanged.
"""

from alembic import context

from db.ledger.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transaction_per_migration=True,
    transactional_ddl=True,  # SQLite rolls back DDL too, if transactions begin explicitly
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
