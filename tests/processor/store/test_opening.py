"""The store's file: made, found, refused, brought up to date."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.store.files import beside, default_path, open_reader, open_writer, size_on_disk
from neatlogs_processor.store.migrations import APPLICATION_ID, STEPS, VERSION, migrate
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.processor import running
from support.store_contents import assert_sound, rollups_of, spans_of
from support.store_parts import POLICY, START, store_at, trace, traces

OPEN_AND_WRITE = """
import sys
from pathlib import Path
sys.path.append(sys.argv[3])
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.store_parts import POLICY, START, trace, traces
connection = open_writer(Path(sys.argv[1]))
for number in range(20):
    # Each process sends its own traces and one span of each shared trace.
    sent = [trace(100 * int(sys.argv[2]) + number), trace(10_000 + number, spans=8)[int(sys.argv[2]):]]
    Writing(connection).write([(read_request(traces(*sent).body, POLICY), ())], START)
connection.close()
"""


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def write(connection: sqlite3.Connection, number: int) -> None:
    """Write a trace."""
    Writing(connection).write([(read_request(traces(trace(number)).body, POLICY), ())], START)


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """The folder that is made, the file, its log, the log's index and the reserve are the user's alone."""
    path = tmp_path / "new" / "traces.db"
    async with store_at(path) as parts:
        await parts.keep()
        assert mode(path.parent) == 0o700
        assert {file.name: mode(file) for file in path.parent.iterdir()} == {
            "traces.db": 0o600,
            "traces.db-wal": 0o600,
            "traces.db-shm": 0o600,
            "traces.db-reserve": 0o600,
        }


def test_a_store_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    """A store that was copied with wider permissions is narrowed when it is opened for writing."""
    path = tmp_path / "traces.db"
    open_writer(path).close()
    path.chmod(0o644)
    open_writer(path).close()
    assert mode(path) == 0o600
    assert mode(tmp_path) != 0o600


def _text(path: Path) -> None:
    path.write_text("name,amount\n" * 1000)


def _other_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE invoices (amount)")


def _newer(path: Path) -> None:
    with contextlib.closing(open_writer(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def _beheaded(path: Path) -> None:
    with contextlib.closing(open_writer(path)) as connection:
        write(connection, 1)
    path.write_bytes(bytes(200) + path.read_bytes()[200:])


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a text file": (_text, "file is not a database"),
    "another program's database": (_other_program, "the database of another program; choose another path"),
    "a newer version's store": (_newer, f"a newer version \\(schema {VERSION + 1}, here {VERSION}\\)"),
    "a store whose head is damaged": (_beheaded, "file is not a database"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_our_store_stays_as_it_is(tmp_path: Path, name: str) -> None:
    """A file that cannot be used is an error that names it, for writers and readers; not a bit of it changes."""
    make, message = FOREIGN[name]
    path = tmp_path / "traces.db"
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    for opened in (open_writer, open_reader):
        with pytest.raises(ConfigError, match=message) as refused:
            opened(path)
        assert str(path) in str(refused.value)
    assert path.read_bytes() == before
    assert mode(path) == 0o644


async def test_the_processor_does_not_start_with_it(tmp_path: Path) -> None:
    """What is wrong with the store's file is said at the start, before anything is accepted."""
    path = tmp_path / "traces.db"
    _text(path)
    with pytest.raises(ConfigError, match=r"--store: .*traces\.db cannot be used"):
        async with running(store=str(path)):
            raise AssertionError("it started")


@pytest.mark.parametrize("where", ["", "file/traces.db"])
def test_a_path_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    """A directory, or a path through a file, is an error that says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*; choose another path, or none"):
        open_writer(tmp_path / where)


def test_no_store_to_read(tmp_path: Path) -> None:
    """A reader says that there is no store, and makes none."""
    with pytest.raises(ConfigError, match="there is no store at"):
        open_reader(tmp_path / "traces.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("half", ["an empty file", "no tables yet"])
def test_a_first_start_that_was_interrupted(tmp_path: Path, half: str) -> None:
    """What a process leaves that is killed while it makes the store becomes a store at the next start."""
    path = tmp_path / "traces.db"
    path.touch()
    if half == "no tables yet":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
    with pytest.raises(ConfigError, match="older version"):
        open_reader(path)
    with contextlib.closing(open_writer(path)) as connection:
        write(connection, 1)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert_sound(path)


def test_processes_make_and_write_one_store_together(tmp_path: Path) -> None:
    """Several processes that start at once on a new path, with traces of their own and common ones, lose nothing."""
    path = tmp_path / "traces.db"
    shared = str(Path(__file__).parents[2])
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, str(path), str(number), shared],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    errors = [program.communicate(timeout=60)[1] for program in programs]
    assert errors == ["", "", ""]
    assert len(rollups_of(path)) == 3 * 20 + 20
    assert spans_of(path).total() == 3 * 20 + 20 * 8
    assert_sound(path)


def test_a_migration_takes_a_store_from_version_to_version(tmp_path: Path) -> None:
    """Each step that a file has not taken is taken once, in order; what is in the file stays."""
    path = tmp_path / "traces.db"
    taken = []

    def add_column(connection: sqlite3.Connection) -> None:
        taken.append("column")
        connection.execute("ALTER TABLE traces ADD COLUMN country TEXT")

    def fill_column(connection: sqlite3.Connection) -> None:
        taken.append("fill")
        connection.execute("UPDATE traces SET country = 'fr'")

    with contextlib.closing(open_writer(path)) as connection:
        write(connection, 1)
        for _ in range(2):
            migrate(connection, (*STEPS, add_column, fill_column))
        assert connection.execute("SELECT country, spans FROM traces").fetchall() == [("fr", 1)]
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 2,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert taken == ["column", "fill"]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A step is taken in whole or not at all, and the one before it stays taken."""

    def good(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE traces ADD COLUMN country TEXT")

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE traces SET country = 'fr'")
        connection.execute("no statement")

    with contextlib.closing(open_writer(tmp_path / "traces.db")) as connection:
        write(connection, 1)
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, (*STEPS, good, bad))
        assert connection.execute("SELECT country FROM traces").fetchall() == [(None,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_a_step_that_another_process_took(tmp_path: Path) -> None:
    """A process that would bring a file up to date finds what another has done since it opened the file."""
    path = tmp_path / "traces.db"

    def step(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE traces ADD COLUMN country TEXT")

    with contextlib.closing(open_writer(path)) as one, contextlib.closing(open_writer(path)) as other:
        migrate(one, (*STEPS, step))
        # A second time the step would fail: there is the column.
        migrate(other, (*STEPS, step))
        write(other, 1)
        assert one.execute("SELECT country, spans FROM traces").fetchall() == [(None, 1)]


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", "/home/ada/.local/share/neatlogs/traces.db"),
        ({"XDG_DATA_HOME": "/data"}, "linux", "/data/neatlogs/traces.db"),
        ({"XDG_DATA_HOME": "data"}, "linux", "/home/ada/.local/share/neatlogs/traces.db"),
        ({"XDG_DATA_HOME": ""}, "linux", "/home/ada/.local/share/neatlogs/traces.db"),
        ({}, "darwin", "/home/ada/Library/Application Support/neatlogs/traces.db"),
    ],
)
def test_where_the_store_is_unless_somebody_says(environ: dict[str, str], platform: str, expected: str) -> None:
    """In the user's data directory, as the XDG specification has it and as macOS has it."""
    assert default_path(environ, lambda: Path("/home/ada"), platform) == Path(expected)


def test_the_size_on_disk_counts_the_log(tmp_path: Path) -> None:
    """What the store takes is its file, its log and the log's index, each where it is there."""
    path = tmp_path / "traces.db"
    assert size_on_disk(path) == 0
    with contextlib.closing(open_writer(path)) as connection:
        write(connection, 1)
        files = [path, beside(path, "wal"), beside(path, "shm")]
        assert size_on_disk(path) == sum(file.stat().st_size for file in files)
