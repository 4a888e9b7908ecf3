"""The process that runs user SQL: it can read the atlas and the tables passed to it, and nothing else.

`db.sql.runner` starts it as `python -m db.sql.process`, in a folder and an environment that reveal nothing.
Requests arrive on standard input, one JSON object per line, each with its time limit in "seconds". Answers go
to standard output: one line of JSON and, for a result, an Arrow stream and another line after it:

    {"atlas": path}    open that atlas, "" for an empty one       -> {"ready": true}, as at the start
    {"check": sql}     check a statement                          -> {"tables": […], "parameters": […], "plan": ""}
    {"run": sql, "values": {…}, "tables": {name: file}, "rows": max, "bytes": max}
                                                                  -> {"columns": […]}, Arrow, {"more": bool}
    anything that fails                                           -> {"refused": sentence} or {"failed": sentence}

Every Python error becomes such a sentence; after one with `"last": true` the process exits and is replaced.

Memory: RLIMIT_DATA lets data grow by the process's memory limit less what it uses at the start. DuckDB's own
limit is a fraction of that, so that its error message comes first; the rest is for memory that DuckDB does
not count.

A statement that takes too long is stopped by killing this process: some of DuckDB's functions cannot be
interrupted.
"""

import itertools
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from db.atlas.schema import COMMENTS as ATLAS_COMMENTS
from db.atlas.schema import ddl
from db.ledger.comments import COMMENTS
from db.sql.guard import RefusedSQL, check, one_sentence
from db.sql.views import VIEWS, ledger_tables_of, with_what_they_read

BATCH = 2048
MAX_TRIED = 5  # up to this many parameters are tried as text and number in all combinations
MAX_THREADS = 4
# DuckDB's share of the remaining memory: it does not count single values, nor tables that it builds.
DUCKDB_SHARE = 0.75
STARTED_BYTES = 128 << 20  # memory of this process before it reads any row
MAX_DEPTH = 10_000  # of the syntax tree as JSON: over three times that of DuckDB's deepest statement
STATUS = Path("/proc/self/status")
SPARE_SECONDS = 5  # of CPU time, to read the request and exit
NICENESS = 5  # pages have priority over expensive queries
NAMES = frozenset(
    name for name in (*ATLAS_COMMENTS, *COMMENTS, *VIEWS) if name != "atlas_info"
)  # what a statement may read
_CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


class Session:
    """An open atlas with a locked configuration."""

    def __init__(self, atlas: str, memory: int) -> None:
        """Open the atlas; `memory` is DuckDB's own limit in bytes."""
        configuration = _CONFIGURATION | {"memory_limit": f"{memory}B", "threads": str(threads())}
        if atlas:
            self.connection = duckdb.connect(atlas, read_only=True, config=configuration)
        else:  # nothing published yet: create the same tables, empty
            self.connection = duckdb.connect(config=configuration)
            self.connection.execute(ddl())
        self.connection.execute(
            "SET temp_directory = ''; SET enable_external_access = false; SET lock_configuration = true"
        )

    def run(self, request: dict[str, Any], out: BinaryIO) -> None:
        """Check and run a statement, and write its rows.

        Raises:
            RefusedSQL, duckdb.Error: before the first row.
        """
        checked = check(self.connection, request["run"], NAMES)
        cursor = self.connection.cursor()
        try:
            for name, file in request["tables"].items():
                cursor.register(name, pa.ipc.open_file(pa.memory_map(file)).read_all())
            for name in with_what_they_read(checked.names):
                cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {VIEWS[name].sql}")
            plan = f"{checked.plan} " if checked.plan else ""
            values = {name: request["values"].get(name) for name in checked.parameters}
            found = _with_values(cursor, plan + checked.sql, values)
            columns = [[name, str(kind)] for name, kind in zip(found.columns, found.types, strict=True)]
            reader = _reader(found)  # before any answer, so a failure here becomes an error message
            _say(out, columns=columns, plan=checked.plan)
            _send(reader, request, out)
        finally:
            cursor.close()


def _with_values(cursor: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> Any:
    """Bind the parameter values, passing integers as text where possible.

    DuckDB casts text to the type that it is compared with (a class may be named 1). Where text is not valid,
    integers are passed as numbers, as few as necessary.
    """
    typed = {name: value["whole"] for name, value in values.items() if isinstance(value, dict)}
    if not typed:
        return cursor.sql(sql, params=values or None)
    few = len(typed) <= MAX_TRIED
    for count in range(len(typed) + 1) if few else (0, len(typed)):
        for numbers in itertools.combinations(typed, count):
            tried = values | typed | {name: int(typed[name]) for name in numbers}
            try:
                return cursor.sql(sql, params=tried)
            except duckdb.BinderException:
                if count == len(typed):
                    raise
    raise AssertionError("the last try returns or raises")


# Arrow has no type for these, or one that is read incorrectly: they are sent as DuckDB's text. (Parquet has
# no INTERVAL; a UHUGEINT would become negative, a TIME WITH TIME ZONE would lose its zone.)
_AS_TEXT = frozenset(
    ("interval", "time with time zone", "uhugeint", "bignum", "bit", "variant", "union", "geometry")
)


def _goes_as_text(kind: Any) -> bool:
    if kind.id in _AS_TEXT:
        return True
    if kind.id in ("list", "array", "struct", "map"):
        return any(_goes_as_text(inner) for _, inner in kind.children if hasattr(inner, "id"))
    return False


def _reader(found: Any) -> pa.RecordBatchReader:
    """The rows as Arrow, under the column names of the statement."""
    names = list(found.columns)
    texts = [_goes_as_text(kind) for kind in found.types]
    if not any(texts):
        return found.to_arrow_reader(BATCH)
    cells = (f"#{at}::VARCHAR" if text else f"#{at}" for at, text in enumerate(texts, 1))
    reader = found.project(", ".join(cells)).to_arrow_reader(BATCH)
    schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
    renamed = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, renamed)


def _send(reader: Any, request: dict[str, Any], out: BinaryIO) -> None:
    """Write rows up to the limits as an Arrow stream, then a line that says whether there were more, or what failed."""
    told: dict[str, Any] = {"more": False}
    with pa.ipc.new_stream(out, reader.schema) as stream:
        try:
            for batch, more in _within(reader, request["rows"], request["bytes"]):
                stream.write_batch(batch)
                out.flush()
                told["more"] = more
        except BrokenPipeError:
            raise
        except Exception as error:
            # DuckDB's errors arrive as Arrow errors or OSError. The stream is ended properly; the next line
            # has the error.
            told |= _failed(error)
    _say(out, **told)
    if "last" in told:
        raise SystemExit


def _within(reader: Any, rows: int, size: int) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """Batches within the row and byte limits, each with whether the result was cut off after it."""
    left = rows
    for batch in reader:
        if batch.num_rows > left:
            if left:
                yield batch.slice(0, left), True
            else:
                yield batch.slice(0, 0), True
            return
        left -= batch.num_rows
        size -= batch.nbytes
        yield batch, size < 0
        if size < 0:
            return


def _say(out: BinaryIO, **told: Any) -> None:
    out.write(json.dumps(told).encode() + b"\n")
    out.flush()


def threads() -> int:
    """Number of threads per statement."""
    return min(MAX_THREADS, os.cpu_count() or 1)


def _failed(error: Exception) -> dict[str, Any]:
    """The answer to a statement that failed; the process's last one if DuckDB is no longer usable."""
    fatal = isinstance(error, MemoryError | duckdb.FatalException | duckdb.InternalException)
    return {"failed": one_sentence(error)} | ({"last": True} if fatal else {})


def _allow_seconds(seconds: float) -> None:
    """Limit CPU time from now on, over all threads together: a limit that needs no supervising process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + threads() * seconds) + SPARE_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _for_duckdb(memory: int) -> int:
    """DuckDB's memory limit in bytes if the process may use `memory` bytes."""
    started = _status("VmRSS") if STATUS.exists() else STARTED_BYTES
    return int((memory - started) * DUCKDB_SHARE)


def _bound(memory: int) -> None:
    """Limit this process to `memory` bytes: its data may grow by what remains of them.

    The limit counts memory when it is reserved, before it is used. The stacks of DuckDB's threads are fully
    reserved and hardly used, so they are created before the limit is set. Without /proc (macOS), DuckDB's own
    limit must suffice.
    """
    if STATUS.exists():
        limit = _status("VmData") + memory - _status("VmRSS")
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def _opened(atlas: str, memory: int) -> Session:
    """Open a session on the atlas within the memory limit; the previous session is kept until this one is open."""
    if STATUS.exists():
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    session = Session(atlas, _for_duckdb(memory))
    _bound(memory)
    return session


def _status(name: str) -> int:
    """A number from /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) << 10


def main() -> None:
    """Answer requests until standard input ends."""
    os.nice(NICENESS)
    sys.setrecursionlimit(MAX_DEPTH)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # this process never writes files
    pa.set_cpu_count(1)  # Arrow only passes rows on, and each thread's stack counts as memory
    pa.set_io_thread_count(1)
    out = sys.stdout.buffer
    memory = int(os.environ["CONVSCOPE_SQL_MEMORY"])
    session = _opened("", memory)
    _say(out, ready=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _allow_seconds(request["seconds"])
        try:
            if "atlas" in request:
                session = _opened(request["atlas"], memory)
                _say(out, ready=True)
            elif "check" in request:
                found = check(session.connection, request["check"], NAMES)
                tables = sorted(ledger_tables_of(found.names))
                _say(out, tables=tables, parameters=found.parameters, plan=found.plan)
            else:
                session.run(request, out)
        except RefusedSQL as error:
            _say(out, refused=str(error))
        except BrokenPipeError:
            os._exit(0)  # the parent is gone; a normal exit would report unwritten output
        except Exception as error:  # caused by the statement: report it and serve the next request
            told = _failed(error)
            _say(out, **told)
            if "last" in told:
                return


if __name__ == "__main__":
    main()
