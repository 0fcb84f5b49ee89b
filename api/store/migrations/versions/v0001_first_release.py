"""The tables of the first release, made by that release itself.  Nothing leads here."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Stores begin with the present tables."""
