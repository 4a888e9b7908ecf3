"""The web server: one process with threads, so that caches are shared.

Waitress receives requests and sends answers in one loop without blocking, and hands a thread only what arrived whole.
So a client that sends or reads slowly holds a connection, never a thread; what is held for too long is closed, and
where all connections are taken, the one that waited longest makes room (see `Server`).
"""

import logging
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

from dashboard.app import create_app
from dashboard.pictures import compose
from dashboard.security.access import check_binding
from db.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

THREADS = 16  # user queries may hold eight of them, running and waiting (see db/sql/places.py)
MAX_CONNECTIONS = 1000
MAX_HEADER = 64 * 2**10  # bytes of a request line and its headers; see address.MAX_ADDRESS
MAX_BODY = 24 * 2**20  # bytes that any route takes; most take far less (see gate.MAX_BODIES)
BUFFER = 64 * 2**20  # bytes of an answer that wait for a slow client, on disk, before its thread waits too

# In seconds.
KEEP_ALIVE = 75.0  # an idle connection, kept for the next request
HEADER_WITHIN = 20.0  # a request's headers must be complete
BODY_WITHIN = 600.0  # a request must be complete
IDLE_WITHIN = 30.0  # between two pieces of a request, or of an answer that the client takes
LOOK_EVERY = 2.0


class PortTaken(RuntimeError):
    """The address cannot be listened on; the message is one sentence for the person who asked."""


def address(host: str, port: int, prefix: str = "") -> str:
    """Where the dashboard is to be opened."""
    host = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}" + (f"{prefix}/" if prefix else "")


class Refusal(ErrorTask):  # type: ignore[misc]  # Waitress ships no types
    """The answer to a request that never reaches the application: one sentence."""

    def execute(self) -> None:
        """Write it, and close the connection after it."""
        error = self.request.error
        sentence = {
            413: f"body: expected at most {MAX_BODY:,} bytes, got more",
            431: f"expected an address with headers of at most {MAX_HEADER:,} bytes, got more",
        }.get(error.code, f"expected an HTTP request, got another: {error.body}")
        body = f"{' '.join(sentence.split())}\n".encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # Waitress ships no types
    """A connection that knows since when it has been receiving its present request."""

    error_task_class = Refusal
    began = 0.0

    def received(self, data: bytes) -> bool:
        """Take bytes from the client."""
        before = self.request
        taken = bool(super().received(data))
        if self.request is not before:
            self.began = time.time()
        return taken

    def is_overdue(self, now: float) -> bool:
        """Whether the client has kept this connection waiting for too long; never while a thread computes."""
        idle = now - self.last_activity
        if self.total_outbufs_len:
            return bool(idle > IDLE_WITHIN)
        if self.requests:
            return False
        if self.request is None:
            return bool(idle > KEEP_ALIVE)
        if not self.request.headers_finished:
            return now - self.began > HEADER_WITHIN
        return bool(idle > IDLE_WITHIN) or now - self.began > BODY_WITHIN


class Server(TcpWSGIServer):  # type: ignore[misc]  # Waitress ships no types
    """The application behind a listening socket. `effective_port` is the port, also where 0 asked for any free one."""

    channel_class = Channel

    def __init__(self, application: "WSGIApplication", host: str, port: int) -> None:
        self._most = _connections()
        super().__init__(
            application,
            adj=Adjustments(
                host=host,
                port=port,
                threads=THREADS,
                connection_limit=self._most + 100,  # `handle_accept` makes room before
                backlog=256,
                cleanup_interval=LOOK_EVERY,
                max_request_header_size=MAX_HEADER,
                max_request_body_size=MAX_BODY,
                outbuf_high_watermark=BUFFER,
                channel_request_lookahead=1,  # notices a client that goes away while a thread works for it
                asyncore_use_poll=True,
                clear_untrusted_proxy_headers=False,  # `proxy.py` decides whose to trust
                ident=None,
            ),
        )

    def bind_server_socket(self) -> None:
        """Listen; on `::` for both versions of IP, as a name without a version suggests."""
        if self.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().bind_server_socket()

    def handle_accept(self) -> None:
        """Take a new connection; where all are taken, close the one that has waited longest for its client."""
        if len(self.active_channels) >= self._most:
            waiting = [channel for channel in self.active_channels.values() if not channel.requests]
            if waiting:
                min(waiting, key=lambda channel: channel.last_activity).handle_close()
        super().handle_accept()

    def maintenance(self, now: float) -> None:
        """Close the connections whose clients are overdue; called every LOOK_EVERY seconds."""
        for channel in self.active_channels.values():
            if channel.is_overdue(now):
                channel.will_close = True


def _connections() -> int:
    """How many connections the process can hold beside its files; raises the soft limit of open files for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(MAX_CONNECTIONS, soft // 2))


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve the dashboard until it is told to stop; `ready` hears the URL once it can be opened.

    Raises:
        NoLogin: others could reach it, and nothing would ask who they are.
        PortTaken: something else listens there, or the host is not this machine's.
    """
    check_binding(settings)
    check_port(settings)
    compose.one_thread()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(
        logging.ERROR
    )  # it warns of each request that waits for a thread
    application: Any = create_app(settings).server
    server = Server(application, settings.host, settings.port)
    (ready or (lambda url: print(f"Convscope is at {url}", flush=True)))(
        address(settings.host, int(server.effective_port), settings.url_prefix)
    )
    server.run()


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
