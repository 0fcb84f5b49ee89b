"""The tables of the store, the same in every SQL database.  One version; `migrations` leads to it from older ones."""

from __future__ import annotations

import secrets

from api.errors import FailedPrecondition
from api.store.database import Database

VERSION = 2

TABLES = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "CREATE TABLE counter (revision BIGINT NOT NULL, compacted BIGINT NOT NULL, page_key {bytes} NOT NULL)",
    """CREATE TABLE object (
  id {id}, kind {text} NOT NULL, namespace {text} NOT NULL, name {text} NOT NULL,
  uid {text} NOT NULL, revision BIGINT NOT NULL, body {bytes} NOT NULL, UNIQUE (kind, namespace, name))""",
    "CREATE INDEX object_name ON object (kind, name, namespace)",
    # text: the first TEXT_LENGTH characters, for what an index can hold; whole: all of them where there are more.
    """CREATE TABLE field (
  object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE, key {text} NOT NULL, kind {text} NOT NULL,
  namespace {text} NOT NULL, name {text} NOT NULL, text {text}, whole {text}, number {number},
  PRIMARY KEY (object, key)) {by_key}""",
    # Indexes end with the object, so that a page is found without a look at the rows.
    "CREATE INDEX field_text ON field (kind, key, text, namespace, name, object) WHERE text IS NOT NULL",
    "CREATE INDEX field_number ON field (kind, key, number, namespace, name, object) WHERE number IS NOT NULL",
    # The newest of a project, which is what people look at.  A list has to say the same words to be led here.
    """CREATE INDEX field_created ON field (kind, namespace, number, name, object)
  WHERE key || '' = 'metadata.creation_timestamp'""",
    """CREATE INDEX field_updated ON field (kind, namespace, number, name, object)
  WHERE key || '' = 'metadata.update_timestamp'""",
    """CREATE TABLE label (
  object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE, key {text} NOT NULL, kind {text} NOT NULL,
  namespace {text} NOT NULL, name {text} NOT NULL, value {text} NOT NULL, PRIMARY KEY (object, key)) {by_key}""",
    "CREATE INDEX label_value ON label (kind, key, value, namespace, name, object)",
    """CREATE TABLE owner (
  uid {text} NOT NULL, object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE,
  PRIMARY KEY (uid, object)) {by_key}""",
    "CREATE INDEX owner_object ON owner (object)",
    """CREATE TABLE change (
  revision {integer} PRIMARY KEY, kind {text} NOT NULL, namespace {text} NOT NULL, name {text} NOT NULL,
  type {text} NOT NULL, body {bytes} NOT NULL, time {seconds} NOT NULL, previous {bytes})""",
    "CREATE INDEX change_kind ON change (kind, revision)",
    """CREATE TABLE lease (
  name {text} PRIMARY KEY, holder {text} NOT NULL, epoch BIGINT NOT NULL, expires {seconds} NOT NULL,
  ttl {seconds} NOT NULL)""",
    """CREATE TABLE request (
  scope {text} NOT NULL, id {text} NOT NULL, digest {bytes} NOT NULL, answer {bytes} NOT NULL, time {seconds} NOT NULL,
  PRIMARY KEY (scope, id)) {by_key}""",
    "CREATE INDEX request_time ON request (time)",
    "CREATE TABLE indexed (kind {text} PRIMARY KEY, digest {text} NOT NULL)",
    "CREATE TABLE audit (number {integer} PRIMARY KEY, body {bytes} NOT NULL, head {bytes} NOT NULL)",
)
TEXT_LENGTH = 256


def create(db: Database) -> None:
    """Make the tables of an empty store.  Inside one transaction of the caller."""
    for statement in TABLES:
        db.execute(statement.format(**db.dialect.types))
    db.execute("INSERT INTO schema_version VALUES (?)", (VERSION,))
    db.execute("INSERT INTO counter VALUES (0, 0, ?)", (secrets.token_bytes(32),))


def version(db: Database) -> int:
    """Return the version in a store that has tables.  Raises FailedPrecondition for one of a newer release.

    0: the first release was interrupted when it made them; there is nothing in them.
    """
    row = db.execute("SELECT version FROM schema_version").fetchone()
    found = int(row[0]) if row else 0
    if found > VERSION:
        raise FailedPrecondition(
            f"the store has schema {found} of a newer release, this one knows {VERSION}: upgrade the program",
            reason="STORE_TOO_NEW",
        )
    return found
