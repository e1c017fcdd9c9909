"""The local index: an SQLite mirror of the records that answers questions about 100,000 cards at once.

    with Index(knowledge) as index:                 # brought up to date from the files
        index.rows("SELECT id, result FROM cards WHERE status = 'keep' ORDER BY timestamp DESC LIMIT 5")

It is a cache: delete `index.sqlite` and the next reader builds it again. The tables are described in docs/protocol.md.

Is it up to date? Records are written once, so a folder whose modification time is as the index has seen it holds what
the index holds. A time says less when the folder changes twice within its resolution, or while this process writes:
until a listing has been made RELIST_SECONDS after the last change, the folder is listed again once in RELIST_SECONDS.

Not covered: a record that was edited in place (`lab/doctor.py` finds it, `commons.py update-index` reads all again).
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, SettingError, StoreError
from lab.schema import Card
from lab.store import record_names

if TYPE_CHECKING:
    from lab.mirror import Mirror

# Another number in `user_version` means other tables: the file is made anew.
VERSION = 7
FOLDERS = ("notes", "events", "cards")  # in this order: a card is folded with its events
RELIST_SECONDS = 10
BUSY_SECONDS = 300  # as long as another process may take to build the index of a large commons
QUERY_SECONDS, QUERY_ROWS = 30, 200_000
CACHE_KIB = 65_536  # at most: with SQLite's 2 MiB, building a large index writes every page many times

_OUTLINE = (
    "id", "timestamp", "track", "metric", "direction", "parent_commit", "hypothesis", "category", "status",
    "quarantined", "champion",
)  # fmt: skip


class Index:
    """The index of one commons, up to date when it opens. Close it, or use it in a `with` block.

    Where its file cannot be written (a read-only commons, a full disk) it is built in memory for this once. With `anew`
    every record is read again; who reads meanwhile has what was before. StoreError or CardError names the first record
    that cannot be read.
    """

    def __init__(self, knowledge: Path, anew: bool = False) -> None:
        self.knowledge = knowledge
        self._seen: dict[str, int] = {}
        self.made: dict[str, Any] = {}
        self._db = self._open_file()
        try:
            self.refresh(anew)
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # damaged, or it cannot be written
            self._db.close()
            with suppress(OSError):
                _remove(knowledge)
            self._db = self._open(":memory:")
            self.refresh()
        except BaseException:
            empty = not any(self._db.execute("SELECT 1 FROM folders WHERE changed >= 0"))
            self.close()
            if empty:
                with suppress(OSError):  # what went wrong first is what the user should hear
                    _remove(knowledge)  # nothing came of it
            raise

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries."""
        with self._damage_told():
            cursor = self._db.execute(sql, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, sql: str, *values: Any) -> dict[str, Any] | None:
        """The first row of a query, None when there is none."""
        return next(iter(self.rows(sql, *values)), None)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of somebody's own SELECT. SettingError when it is none, or takes too long or too many rows."""
        deadline = time.monotonic() + QUERY_SECONDS
        self._db.execute("PRAGMA query_only = 1")
        self._db.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
        self._db.set_authorizer(_only_reading)
        try:
            cursor = self._db.execute(sql)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(QUERY_ROWS + 1)]
        except (sqlite3.Error, sqlite3.Warning, TypeError, ValueError) as error:  # ValueError: a NUL in it
            reason = "it is not one SELECT" if isinstance(error, (TypeError, sqlite3.Warning)) else str(error)
            raise SettingError(f"the query cannot be answered: {reason}; docs/protocol.md lists the tables") from error
        finally:
            self._db.set_authorizer(None)
            self._db.set_progress_handler(None, 0)
            self._db.execute("PRAGMA query_only = 0")
        if len(rows) > QUERY_ROWS:
            raise SettingError(f"the query has more than {QUERY_ROWS} rows; add a LIMIT")
        if binary := [name for row in rows for name, value in row.items() if isinstance(value, bytes)]:
            raise SettingError(f"the query cannot be answered: {binary[0]} is binary; use hex({binary[0]})")
        return rows

    def refresh(self, anew: bool = False) -> None:
        """Take in what has come and let go of what has gone since the last time, or every record `anew`."""
        if not (anew or self._stale()):
            return
        self.made.clear()
        mirror = self._mirror()
        with self._transaction():
            if anew:
                mirror.clear()
            empty = not any(self._db.execute("SELECT 1 FROM folders WHERE changed >= 0"))
            for name in self._stale():  # again under the lock: another process may have done it
                changed, now = _modified(self.knowledge / name), time.time_ns()
                known = {row[0] for row in self._db.execute(f"SELECT id FROM {name}")}
                there = record_names(self.knowledge / name)
                mirror.drop(name, known.difference(there))
                mirror.take(name, (record for record in there if record not in known))
                self._db.execute("UPDATE folders SET changed = ?, listed = ? WHERE name = ?", (changed, now, name))
                self._seen[name] = changed
            if empty:
                mirror.finish()

    def wrote(self, folder: str, record: str) -> None:
        """Take in a record that this process has just written, without listing its folder."""
        changed = _modified(self.knowledge / folder)
        self.made.clear()
        with suppress(sqlite3.DatabaseError), self._transaction():  # damaged, a full disk: the next reader takes it in
            self._mirror().take(folder, [record])
            # Only if nobody else moved the time on: what they wrote would be overlooked.
            values = (changed, folder, self._seen[folder])
            self._db.execute("UPDATE folders SET changed = ? WHERE name = ? AND changed = ?", values)
            self._seen[folder] = changed

    def recall(self, name: str, about: str) -> str | None:
        """What `remember` was told of this name since a card or an event last changed, None when nothing.

        What was made of it may be kept in `made` for as long: reading it once is enough for a process.
        """
        row = self.row("SELECT value FROM derived WHERE name = ? AND about = ?", name, self._as_of(about))
        return str(row["value"]) if row else None

    def remember(self, name: str, about: str, value: str) -> None:
        """Keep what was computed from the cards until one changes. Where the index cannot be written it is not kept."""
        with suppress(sqlite3.DatabaseError):  # nor where it is damaged
            self._db.execute("INSERT OR REPLACE INTO derived VALUES (?, ?, ?)", (name, self._as_of(about), value))

    def _as_of(self, about: str) -> str:
        # Another process may have taken in a card while this one computed.
        return f"{self._seen.get('cards')} {self._seen.get('events')} {about}"

    def _open_file(self) -> sqlite3.Connection:
        path = self.knowledge / "index.sqlite"
        try:
            return self._open(str(path) if self.knowledge.is_dir() else ":memory:")
        except sqlite3.OperationalError:
            return self._open(":memory:")
        except sqlite3.DatabaseError:  # not a database, or a damaged one
            try:
                _remove(self.knowledge)
                return self._open(str(path))
            except (OSError, sqlite3.DatabaseError):  # the latter where another process is at the same
                return self._open(":memory:")

    def _open(self, path: str) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")
                if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    if version:
                        raise sqlite3.DatabaseError("made by another version")
                    from lab.mirror import make_tables

                    make_tables(db)
                    db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except UnicodeDecodeError as error:  # SQLite's message quotes the damaged page
            db.close()
            raise sqlite3.DatabaseError("damaged") from error
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _stale(self) -> list[str]:
        """The folders that may hold something else than the index, in the order of `FOLDERS`."""
        now, stale = time.time_ns(), []
        relist = RELIST_SECONDS * 1_000_000_000
        for name, changed, listed in self._db.execute("SELECT name, changed, listed FROM folders"):
            self._seen[name] = changed
            unsettled = listed < changed + relist and now > listed + relist
            if unsettled or _modified(self.knowledge / name) != changed:
                stale.append(name)
        return sorted(stale, key=FOLDERS.index)

    def outlines(self, track: str | None = None) -> list[Card]:
        """The cards of a track, or of all, newest first, with only the fields that pictures and lineages need."""
        where, values = ("WHERE track = ?", [track]) if track else ("", [])
        prior: dict[str, list[str]] = {}
        for row in self.rows("SELECT card, prior FROM links ORDER BY rowid"):
            prior.setdefault(row["card"], []).append(row["prior"])
        names = ", ".join(_OUTLINE)
        rows = self.rows(
            f"SELECT {names}, commit_id, result, delta FROM cards {where} ORDER BY timestamp DESC, id DESC", *values
        )
        for row in rows:
            row["commit"] = row.pop("commit_id")
            row["results"] = {row["metric"]: row.pop("result"), "delta": row.pop("delta")}
            row["prior_knowledge_used"] = prior.get(row["id"], [])
        return rows

    def read(self, card_id: str) -> Card:
        """The card of this id from its file, folded with its events."""
        with self._damage_told():
            return self._mirror().read(card_id)

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """A page of the file that cannot be read is a StoreError; opening has read only a few of them."""
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            path = self.knowledge / "index.sqlite"
            raise StoreError(f"cannot read {path}: {error}; `commons.py update-index` makes it anew") from error

    def _mirror(self) -> "Mirror":
        from lab.mirror import Mirror  # which most readers never need

        return Mirror(self.knowledge, self._db)


def check(knowledge: Path) -> str | None:
    """Why the index file is damaged, None when it is whole or absent. That it lags behind is no damage."""
    path = knowledge / "index.sqlite"
    if not path.exists():
        return None
    try:
        db = _read_only(path)
        try:
            answer = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error as error:
        return str(error)
    return None if answer == "ok" else " ".join(answer.split())


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def edited(knowledge: Path) -> Iterator[str]:
    """The cards that do not say any more what the index took in: somebody has edited the files in place."""
    from lab.mirror import COLUMNS, Mirror, values_of

    path = knowledge / "index.sqlite"
    if not path.exists():
        return
    with suppress(sqlite3.Error), closing(_read_only(path)) as db:
        for row in db.execute(f"SELECT {', '.join(COLUMNS)} FROM cards ORDER BY id"):
            with suppress(LabError):  # gone, or what is wrong with it is told by others
                if values_of(Mirror(knowledge, db).read(row[0])) != list(row):
                    yield row[0]


def remove(knowledge: Path) -> None:
    """Take a damaged index away; the next reader builds it again. StoreError when it cannot be removed.

    Not one that is whole: to who reads it meanwhile, a new log beside the old file is damage.
    """
    try:
        _remove(knowledge)
    except OSError as error:
        raise StoreError(f"cannot remove {knowledge / 'index.sqlite'}: {error.strerror}") from error


def _remove(knowledge: Path) -> None:
    for suffix in ("-wal", "-shm", ""):  # the database last: no stray log may be beside a new one
        (knowledge / f"index.sqlite{suffix}").unlink(missing_ok=True)


def _modified(folder: Path) -> int:
    """When a name in the folder last changed, in nanoseconds; 0 without a folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error


_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def _only_reading(action: int, *about: str | None) -> int:
    """sqlite3's authorizer for somebody else's SQL: nothing but SELECT, and no function that loads code."""
    # The second takes, where SQLite is built with it (Debian), an address in memory for a tokenizer's.
    forbidden = action == sqlite3.SQLITE_FUNCTION and about[1] in ("load_extension", "fts3_tokenizer")
    allowed = action in _READING and not forbidden
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
