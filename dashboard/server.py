"""The web server: one process with threads, so caches are shared.

Waitress receives requests and sends responses in one non-blocking loop, and passes only complete requests to
a thread. A client that sends or reads slowly therefore occupies a connection but never a thread. Connections
held too long are closed, and when all connections are taken, the one that has waited longest is closed to
make room (see `Server`).
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

THREADS = 16  # user queries may take up to eight of them, running and queued (see db/sql/places.py)
MAX_CONNECTIONS = 1000
MAX_HEADER = 64 * 2**10  # bytes of a request line and its headers; see address.MAX_ADDRESS
MAX_BODY = 24 * 2**20  # maximum of any route in bytes; most accept far less (see middleware.MAX_BODIES)
BUFFER = 64 * 2**20  # bytes of a response buffered on disk for a slow client before its thread has to wait

# Timeouts in seconds.
KEEP_ALIVE = 75.0  # an idle keep-alive connection
HEADER_WITHIN = 20.0  # until a request's headers are complete
BODY_WITHIN = 600.0  # until a request is complete
IDLE_WITHIN = 30.0  # between two chunks of a request, or of a response that the client reads
LOOK_EVERY = 2.0


class PortTaken(RuntimeError):
    """The address cannot be listened on; the message is one sentence for the user."""


def address(host: str, port: int, prefix: str = "") -> str:
    """URL at which the dashboard is opened."""
    host = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}" + (f"{prefix}/" if prefix else "")


class Refusal(ErrorTask):  # type: ignore[misc]  # Waitress ships no types
    """The response to a request that never reaches the application: one sentence."""

    def execute(self) -> None:
        """Write the response, then close the connection."""
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
    """A connection that records when its current request began to arrive."""

    error_task_class = Refusal
    began = 0.0

    def received(self, data: bytes) -> bool:
        """Receive bytes from the client."""
        before = self.request
        taken = bool(super().received(data))
        if self.request is not before:
            self.began = time.time()
        return taken

    def is_overdue(self, now: float) -> bool:
        """Whether the client has exceeded a timeout; never while a thread works on its request."""
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
    """The application behind a listening socket; `effective_port` is the actual port if port 0 requested any."""

    channel_class = Channel

    def __init__(self, application: "WSGIApplication", host: str, port: int) -> None:
        self._most = _connections()
        super().__init__(
            application,
            adj=Adjustments(
                host=host,
                port=port,
                threads=THREADS,
                connection_limit=self._most + 100,  # `handle_accept` makes room before this limit
                backlog=256,
                cleanup_interval=LOOK_EVERY,
                max_request_header_size=MAX_HEADER,
                max_request_body_size=MAX_BODY,
                outbuf_high_watermark=BUFFER,
                channel_request_lookahead=1,  # detects a client that disconnects while a thread works on its request
                asyncore_use_poll=True,
                clear_untrusted_proxy_headers=False,  # `proxy.py` decides which to trust
                ident=None,
            ),
        )

    def bind_server_socket(self) -> None:
        """Listen; on `::` for both IP versions, as expected of an address without a version."""
        if self.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().bind_server_socket()

    def handle_accept(self) -> None:
        """Accept a new connection; if all are taken, first close the one waiting longest for its client."""
        if len(self.active_channels) >= self._most:
            waiting = [channel for channel in self.active_channels.values() if not channel.requests]
            if waiting:
                min(waiting, key=lambda channel: channel.last_activity).handle_close()
        super().handle_accept()

    def maintenance(self, now: float) -> None:
        """Close connections whose clients are overdue; called every LOOK_EVERY seconds."""
        for channel in self.active_channels.values():
            if channel.is_overdue(now):
                channel.will_close = True


def _connections() -> int:
    """Number of connections the process can hold besides its files; raises the soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(MAX_CONNECTIONS, soft // 2))


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve the dashboard until it is stopped; calls `ready` with the URL once it can be opened.

    Raises:
        NoLogin: other machines could reach it without authentication.
        PortTaken: the port is in use, or the host is not an address of this machine.
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
    """Raise PortTaken if the host and port of the settings cannot be listened on."""
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
