"""The map's values in the place of pictures; patients with an alias, a name and a date of birth; answered requests."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Maps that are stored as pictures cannot be turned into values: those gradings lose theirs."""
    op.drop_column("gradings", "overlay")
    op.add_column("gradings", sa.Column("geometry", sa.JSON()))
    op.execute("UPDATE gradings SET heat = NULL")
    op.add_column("gradings", sa.Column("referable", sa.Boolean()))
    op.create_index("gradings_sha256", "gradings", ["sha256"])
    op.add_column("patients", sa.Column("name", sa.String(200)))
    op.add_column("patients", sa.Column("birth_date", sa.Date()))
    op.add_column("patients", sa.Column("alias", sa.String(36), nullable=False, server_default=""))
    patients = sa.table("patients", sa.column("id"), sa.column("alias"))
    gradings = sa.table("gradings", sa.column("id"), sa.column("row", sa.JSON()), sa.column("referable", sa.Boolean()))
    connection = op.get_bind()
    for grading, row in connection.execute(sa.select(gradings.c.id, gradings.c.row)).all():
        change = sa.update(gradings).where(gradings.c.id == grading).values(referable=row["referable"])
        connection.execute(change)
    for (patient,) in connection.execute(sa.select(patients.c.id)).all():
        connection.execute(sa.update(patients).where(patients.c.id == patient).values(alias=str(uuid.uuid4())))
    op.create_table(
        "requests",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("gradings", sa.JSON(), nullable=False),
    )
    op.create_index("requests_created", "requests", ["created"])


def downgrade() -> None:
    """Back to the first schema; the maps are lost."""
    op.drop_table("requests")
    for column in ("alias", "birth_date", "name"):
        op.drop_column("patients", column)
    op.drop_index("gradings_sha256", "gradings")
    for column in ("geometry", "referable"):
        op.drop_column("gradings", column)
    op.execute("UPDATE gradings SET heat = NULL")
    op.add_column("gradings", sa.Column("overlay", sa.LargeBinary()))
