"""The first schema: patients, gradings, readings, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "patients",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "gradings",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("patient", sa.String(200), sa.ForeignKey("patients.id", ondelete="CASCADE")),
        sa.Column("eye", sa.String(5)),
        sa.Column("date", sa.Date()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("bundle", sa.String(100), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("grade", sa.Integer()),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("heat", sa.LargeBinary()),
        sa.Column("overlay", sa.LargeBinary()),
        sa.UniqueConstraint("content", name="gradings_content"),
    )
    op.create_index("gradings_patient_date", "gradings", ["patient", "date"])
    op.create_index("gradings_created", "gradings", ["created"])
    op.create_table(
        "readings",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("grading", sa.String(36), sa.ForeignKey("gradings.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reader", sa.String(200), nullable=False),
        sa.Column("grade", sa.Integer()),
        sa.Column("reason", sa.String(2000), nullable=False),
    )
    op.create_index("readings_grading", "readings", ["grading"])
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    """Drop the four tables."""
    for table in ("audit", "readings", "gradings", "patients"):
        op.drop_table(table)
