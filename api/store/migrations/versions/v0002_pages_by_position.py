"""Lists read from their index in the order of the answer, requests remembered, calls recorded, changes with a time.

Index values are filled in from the objects when the store is opened (`api.store.reindex`).
"""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    "DROP TABLE field",
    "DROP INDEX label_value",
    "ALTER TABLE label RENAME TO label_1",
    "ALTER TABLE lease RENAME TO lease_1",
    """CREATE TABLE field (
  object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE, key TEXT NOT NULL, kind TEXT NOT NULL,
  namespace TEXT NOT NULL, name TEXT NOT NULL, text TEXT, whole TEXT, number NUMERIC,
  PRIMARY KEY (object, key)) WITHOUT ROWID""",
    "CREATE INDEX field_text ON field (kind, key, text, namespace, name, object) WHERE text IS NOT NULL",
    "CREATE INDEX field_number ON field (kind, key, number, namespace, name, object) WHERE number IS NOT NULL",
    """CREATE INDEX field_created ON field (kind, namespace, number, name, object)
  WHERE key || '' = 'metadata.creation_timestamp'""",
    """CREATE INDEX field_updated ON field (kind, namespace, number, name, object)
  WHERE key || '' = 'metadata.update_timestamp'""",
    """CREATE TABLE label (
  object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE, key TEXT NOT NULL, kind TEXT NOT NULL,
  namespace TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (object, key)) WITHOUT ROWID""",
    """INSERT INTO label SELECT l.object, l.key, l.kind, o.namespace, o.name, l.value
  FROM label_1 AS l JOIN object AS o ON o.id = l.object""",
    "DROP TABLE label_1",
    "CREATE INDEX label_value ON label (kind, key, value, namespace, name, object)",
    """CREATE TABLE lease (
  name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch BIGINT NOT NULL, expires REAL NOT NULL, ttl REAL NOT NULL)""",
    "INSERT INTO lease SELECT name, holder, epoch, expires, expires FROM lease_1",
    "DROP TABLE lease_1",
    "CREATE INDEX object_name ON object (kind, name, namespace)",
    "CREATE INDEX owner_object ON owner (object)",
    "ALTER TABLE change ADD COLUMN time REAL NOT NULL DEFAULT 0",
    "ALTER TABLE change ADD COLUMN previous BLOB",
    "CREATE INDEX change_kind ON change (kind, revision)",
    """CREATE TABLE IF NOT EXISTS request (
  scope TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL, time REAL NOT NULL,
  PRIMARY KEY (scope, id)) WITHOUT ROWID""",
    "CREATE INDEX request_time ON request (time)",
    "CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, body BLOB NOT NULL, head BLOB NOT NULL)",
    "CREATE TABLE indexed (kind TEXT PRIMARY KEY, digest TEXT NOT NULL)",
)


def upgrade() -> None:
    """Only SQLite had stores of the first release."""
    for statement in STATEMENTS:
        op.execute(statement)
