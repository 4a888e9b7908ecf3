"""The web server: one gunicorn process with threads, so that caches are shared."""

import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from dashboard import compose
from dashboard.access import check_binding
from dashboard.app import create_app
from db.settings import Settings

THREADS = 16  # people's SQL may hold eight of them, running and waiting (see db/sql_runner.py)
KEEP_ALIVE_SECONDS = 75
REQUEST_LINE = 8190  # the most that gunicorn allows: SQL is asked for by address (see address.MOST_ADDRESS)


class PortTaken(RuntimeError):
    """The address cannot be listened on; the message is one sentence for the person who asked."""


def address(host: str, port: int) -> str:
    """Where the dashboard is to be opened."""
    host = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """The dashboard in gunicorn. The application is made in the worker: DuckDB must not be open across a fork."""

    def __init__(self, settings: Settings, ready: Callable[[str], None] | None) -> None:
        self.settings = settings
        self.ready = ready
        super().__init__()

    def load_config(self) -> None:
        """One process, THREADS threads, connections kept open between pictures."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        options: dict[str, Any] = {
            "bind": f"{host}:{self.settings.port}",
            "workers": 1,
            "threads": THREADS,
            "worker_class": "gthread",
            "keepalive": KEEP_ALIVE_SECONDS,
            "timeout": 120,
            "limit_request_line": REQUEST_LINE,
            "graceful_timeout": 5,
            "loglevel": "warning",
            "control_socket_disable": True,
            # gunicorn by itself believes whoever is on loopback; `proxy.py` decides whom to believe
            "forwarded_allow_ips": "",
            "post_worker_init": self._announce,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application."""
        compose.one_thread()
        return create_app(self.settings).server

    def _announce(self, worker: Any) -> None:
        if self.ready is not None:
            port = worker.sockets[0].getsockname()[1]  # port 0 asked for any free one
            self.ready(address(self.settings.host, port))


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve the dashboard until it is told to stop; `ready` hears the URL once it can be opened.

    Raises:
        NoLogin: others could reach it, and nothing would ask who they are.
        PortTaken: something else listens there, or the host is not this machine's.
    """
    check_binding(settings)
    check_port(settings)
    Server(settings, ready or (lambda url: print(f"Convscope is at {url}", flush=True))).run()


def check_port(settings: Settings) -> None:
    """Raise where the settings' host and port cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}): stop what runs "
                "there or set CONVSCOPE_PORT to another port"
            ) from error
