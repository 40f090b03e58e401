"""The database of the reader's page: who reads, what came in, what was said of it.

SQLite by default, Postgres by its URL. It holds no patient data: studies are named by
their keyed UIDs. What readers sign and what is audited is appended, never changed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.errors import SettingsError

_SCHEMA: Final = 3  # raised when tables change
_EXTENDED: Final = (1, 2)  # versions that lack nothing but tables
_BUSY_S: Final = 30.0
_WRITER: Final = 0x63736664  # names a lock of Postgres: "csfd"

metadata: Final = sa.MetaData()


def _now() -> float:
    return time.time()


schema: Final = sa.Table(
    "schema_version", metadata, sa.Column("version", sa.Integer, nullable=False)
)

users: Final = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(60), nullable=False, unique=True),
    sa.Column("password_hash", sa.String(200), nullable=False),  # "": none
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False, default=True),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("locked_until", sa.Float, nullable=False, default=0.0),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("settings", sa.Text, nullable=False, default="{}"),  # JSON: keys, sound
)

sessions: Final = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),  # SHA-256
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("csrf", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

# Accounts of an OpenID Connect provider, each of one user.
subjects: Final = sa.Table(
    "subjects",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),  # of provider and subject
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False, unique=True),
    sa.Column("bound_at", sa.Float, nullable=False),
)

# Failed sign-ins by address, so that guessing many names is slowed down as well.
addresses: Final = sa.Table(
    "addresses",
    metadata,
    sa.Column("address", sa.String(64), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("locked_until", sa.Float, nullable=False),
)

uploads: Final = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("touched_at", sa.Float, nullable=False),
    sa.Column("note", sa.Text, nullable=False, default="{}"),  # JSON: counts, refusals
)

parts: Final = sa.Table(
    "upload_parts",
    metadata,
    sa.Column("upload_id", sa.ForeignKey("uploads.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
)

# Every study that was uploaded, or that the store has a prediction of.
studies: Final = sa.Table(
    "studies",
    metadata,
    sa.Column("study_uid", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("step", sa.String(40), nullable=False, default=""),  # while it is running
    sa.Column("reason", sa.Text, nullable=False, default=""),  # of a refusal or failure
    sa.Column("version", sa.Integer, nullable=False, default=1),  # late slices: + 1
    sa.Column("slices", sa.Integer, nullable=False, default=0),
    sa.Column("priority", sa.Integer, nullable=False, default=0),  # 2 STAT, 1 urgent
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=True),  # who uploaded it
    sa.Column("accepted_at", sa.Float, nullable=False),  # its newest version
    sa.Column("done_at", sa.Float, nullable=True),
    sa.Column("run_id", sa.String(40), nullable=False, default=""),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),  # retry: + 1
    # What the newest prediction says, so that the worklist opens no file.
    sa.Column("prediction", sa.String(64), nullable=False, default=""),  # its identity
    sa.Column("verdict", sa.String(20), nullable=False, default=""),
    sa.Column("ratio", sa.Float, nullable=False, default=0.0),  # to the operating point
    sa.Column("overall", sa.Float, nullable=True),
    sa.Column("suspicious", sa.String(80), nullable=False, default=""),
    sa.Column("needs_eyes", sa.Boolean, nullable=False, default=False),
    sa.Column("model", sa.String(80), nullable=False, default=""),
    sa.Column("is_locked", sa.Boolean, nullable=False, default=False),  # test set
    # Reviews of this version.
    sa.Column("signed_version", sa.Integer, nullable=False, default=0),
    sa.Column("signed_count", sa.Integer, nullable=False, default=0),
    sa.Column("readers_differ", sa.Boolean, nullable=False, default=False),
    # Pages that follow ask for what has changed since they last looked.
    sa.Column(
        "changed_at", sa.Float, nullable=False, default=_now, onupdate=_now, index=True
    ),
)

# Keyed digests of what a reader may search a study by; nothing can be read from them.
references: Final = sa.Table(
    "references",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("study_uid", sa.ForeignKey("studies.study_uid"), primary_key=True),
)

drafts: Final = sa.Table(
    "drafts",
    metadata,
    sa.Column("user_id", sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("study_uid", sa.ForeignKey("studies.study_uid"), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),  # JSON, as the page keeps it
    sa.Column("saved_at", sa.Float, nullable=False),
)

reviews: Final = sa.Table(
    "reviews",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "study_uid", sa.ForeignKey("studies.study_uid"), nullable=False, index=True
    ),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False),
    sa.Column("signed_at", sa.Float, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # of the study
    sa.Column("prediction", sa.String(64), nullable=False, default=""),
    sa.Column("saw_ai", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON: levels, boxes, comment
)

# Who has opened the prediction of a study, so that a review cannot claim not to.
sights: Final = sa.Table(
    "sights",
    metadata,
    sa.Column("user_id", sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("study_uid", sa.ForeignKey("studies.study_uid"), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
)

# Where results may be sent, and who has asked whether somebody answers there.
peers: Final = sa.Table(
    "peers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(60), nullable=False, unique=True),
    sa.Column("kind", sa.String(10), nullable=False),  # c-store or stow
    sa.Column("ae_title", sa.String(16), nullable=False, default=""),
    sa.Column("host", sa.String(255), nullable=False, default=""),
    sa.Column("port", sa.Integer, nullable=False, default=0),
    sa.Column("is_tls", sa.Boolean, nullable=False, default=False),
    sa.Column("url", sa.String(500), nullable=False, default=""),
    sa.Column("is_automatic", sa.Boolean, nullable=False, default=False),
    sa.Column("automatic_since", sa.Float, nullable=False, default=0.0),
    sa.Column("is_active", sa.Boolean, nullable=False, default=True),
    sa.Column("is_configured", sa.Boolean, nullable=False, default=False),  # a setting
    sa.Column("echo_asked_at", sa.Float, nullable=True),
    sa.Column("echo_at", sa.Float, nullable=True),
    sa.Column("echo_told", sa.Text, nullable=False, default=""),
)

# The outbox: one row for each set of results and peer.
deliveries: Final = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "study_uid", sa.ForeignKey("studies.study_uid"), nullable=False, index=True
    ),
    sa.Column("peer_id", sa.ForeignKey("peers.id"), nullable=False),
    sa.Column("result_set", sa.String(64), nullable=False),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("told", sa.Text, nullable=False, default=""),
    sa.Column("transaction_uid", sa.String(64), nullable=False, default="", index=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.UniqueConstraint("study_uid", "peer_id", "result_set"),
)

# How a study was called by its sender; sealed with CSFD_VAULT_KEY.
vault: Final = sa.Table(
    "identity_vault",
    metadata,
    sa.Column("study_uid", sa.String(64), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False, index=True),
)

# What programs sign in with at /dicom-web.
tokens: Final = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(60), nullable=False, unique=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),  # SHA-256
    sa.Column("may_send", sa.Boolean, nullable=False, default=False),
    sa.Column("may_read", sa.Boolean, nullable=False, default=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),  # of what it sends
    sa.Column("keeps_identity", sa.Boolean, nullable=False, default=False),
    sa.Column("is_active", sa.Boolean, nullable=False, default=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float, nullable=True),
)

audit: Final = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("user_id", sa.Integer, nullable=True),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("subject", sa.String(64), nullable=False, default=""),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)


class Database:
    """Connections to the database; may be used from several threads and processes."""

    def __init__(self, url: str) -> None:
        """Open or make it.

        Args:
            url: As SQLAlchemy takes it: ``sqlite:////folder/web.db`` or
                ``postgresql+psycopg://user:password@host/name``.

        Raises:
            SettingsError: If it cannot be opened, or is of another version.
        """
        try:
            self._engine = _engine(sa.make_url(url))
            with self._engine.begin() as connection:
                metadata.create_all(connection)
                version = connection.scalar(sa.select(schema.c.version))
                if version is None:
                    connection.execute(schema.insert().values(version=_SCHEMA))
                elif version in _EXTENDED:  # the tables that it lacked are there now
                    connection.execute(schema.update().values(version=_SCHEMA))
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            # The URL may hold a password; what SQLAlchemy says may repeat it.
            raise SettingsError(
                "The database of CSFD_WEB_DATABASE cannot be opened: "
                f"{type(error).__name__}. {_remedy(error)}"
            ) from None
        if version not in (None, _SCHEMA, *_EXTENDED):
            self.close()
            raise SettingsError(
                f"The database of CSFD_WEB_DATABASE has version {version}, this csfd "
                f"needs {_SCHEMA}. Use the csfd that wrote it, or a new database."
            )

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection; commit at the end, or roll back where something fails."""
        with self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


def _remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "Its driver is missing: pip install 'csfd[postgres]'."
    return "Check that it is there and may be written."


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, pool_pre_ping=True)
        sa.event.listen(engine, "begin", _wait_for_others)
        return engine
    if url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(url.database).touch(0o600)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's
    connection.isolation_level = None  # or sqlite3 begins transactions by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # At once as a writer: two that read first and write then would block each other.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _wait_for_others(connection: sa.Connection) -> None:
    # One writer at a time, as in SQLite: what was read still holds when it is written.
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER})")
