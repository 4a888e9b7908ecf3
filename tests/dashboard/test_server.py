"""The web server with clients that send, read or wait slowly: none of them blocks another."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from waitress import wasyncore

from dashboard import server
from dashboard.security.middleware import MAX_BODIES, max_body
from dashboard.server import BUFFER, MAX_BODY, MAX_HEADER, THREADS, Server

MANY = 3 * THREADS
SOON = 10.0  # seconds: an answer that nothing blocks takes milliseconds, but a loaded machine is slow


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI app: `/large` streams more than is buffered on disk, `/body` counts bytes received, the rest says hello."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/large":
        return (b"x" * 2**20 for _ in range(2 * BUFFER // 2**20))
    if environ["PATH_INFO"] == "/body":
        return [str(len(environ["wsgi.input"].read())).encode()]
    return [b"hello"]


@contextlib.contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    """Run the server over `application` in a thread."""
    found = Server(application, host, 0)
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        found.maintenance = end_its_loop  # type: ignore[method-assign]
        found.next_channel_cleanup = 0
        found.pull_trigger()
        thread.join()
        wasyncore.close_all(found._map)


def end_its_loop(_now: float) -> None:
    """End a server's loop as a signal does."""
    raise SystemExit


def connect(to: Server, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(to.effective_port)), timeout=SOON)
    connection.sendall(sent)
    return connection


def answer(to: Server, path: str = "/", body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and content, within SOON."""
    connection = http.client.HTTPConnection("127.0.0.1", int(to.effective_port), timeout=SOON)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_closed(connection: socket.socket, *, within: float) -> bool:
    """Return whether the server closes a connection; what it sent before that is discarded."""
    connection.settimeout(within)
    try:
        while connection.recv(2**20):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


STALLED = {
    "nothing": b"",
    "half a request line": b"GET /",
    "half of the headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "half of a body": b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n123",
    "half of a chunk": b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n123",
    "a large answer that is not read": b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("stalled", [name for name in STALLED if not name.startswith("a large")])
def test_stalled_connections_block_nobody(stalled: str) -> None:
    with running() as found, contextlib.ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(connect(found, STALLED[stalled]))
        for _ in range(20):
            assert answer(found) == (200, b"hello")


def test_unread_responses_block_only_their_threads() -> None:
    with running() as found, contextlib.ExitStack() as stack:
        for _ in range(THREADS // 2):  # as many as may run user queries, the answers that can be so large
            stack.enter_context(connect(found, STALLED["a large answer that is not read"]))
        for _ in range(20):
            assert answer(found) == (200, b"hello")


@pytest.mark.parametrize(("stalled", "limit"), [
    ("nothing", "KEEP_ALIVE"), ("half a request line", "HEADER_WITHIN"), ("half of the headers", "HEADER_WITHIN"),
    ("half of a body", "IDLE_WITHIN"), ("half of a chunk", "IDLE_WITHIN"),
    ("a large answer that is not read", "IDLE_WITHIN"),
])  # fmt: skip
def test_a_stalled_connection_is_closed_after_its_limit(
    stalled: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY", 0.1)
    with (
        running() as found,
        connect(found, STALLED[stalled]) as held,
        connect(found, STALLED[stalled]) as other,
    ):
        time.sleep(0.5)
        assert len(found.active_channels) == 2
        monkeypatch.setattr(server, limit, 0.2)
        assert is_closed(held, within=SOON)
        assert is_closed(other, within=SOON)


@pytest.mark.parametrize(("piece", "limit"), [(b"X-Header: 1\r\n", "HEADER_WITHIN"), (b"1", "BODY_WITHIN")])
def test_a_request_that_trickles_in_is_closed_after_its_limit(
    piece: bytes, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(server, limit, 1.0)
    begin = STALLED["half of the headers"] if limit == "HEADER_WITHIN" else STALLED["half of a body"]
    with running() as found, connect(found, begin) as held:
        deadline = time.monotonic() + SOON
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:  # never idle for longer than this
                held.sendall(piece)
                time.sleep(0.1)
        assert time.monotonic() < deadline, "it was kept"


def test_where_all_connections_are_taken_the_one_that_waited_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    with running() as found, contextlib.ExitStack() as stack:
        held = []
        for _ in range(60):
            held.append(stack.enter_context(connect(found, STALLED["half of the headers"])))
            assert len(found.active_channels) <= 20
        assert answer(found) == (200, b"hello")
        assert is_closed(held[0], within=SOON)
        assert not is_closed(held[-1], within=0.3)


def test_a_slow_request_is_answered_whole() -> None:
    request = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123456789"
    with running() as found, connect(found) as slow:
        for byte in request:
            slow.sendall(bytes([byte]))
            time.sleep(0.002)
        assert slow.recv(4096).endswith(b"9")


@pytest.mark.parametrize(
    ("path", "sent", "said"),
    [
        ("/body", b"x" * (MAX_BODY + 1), (413, f"body: expected at most {MAX_BODY:,} bytes, got more\n")),
        (
            "/" + "x" * MAX_HEADER,
            None,
            (431, f"expected an address with headers of at most {MAX_HEADER:,} bytes, got more\n"),
        ),
    ],
)  # fmt: skip
def test_oversized_requests_get_an_error_sentence(
    path: str, sent: bytes | None, said: tuple[int, str]
) -> None:
    with running() as found:
        status, text = _refused(found, path, sent)
    assert (status, text.decode()) == said


def _refused(to: Server, path: str, body: bytes | None) -> tuple[int, bytes]:
    """Return status and content of a request of which only the length of the body is sent."""
    length = b"" if body is None else f"Content-Length: {len(body)}\r\n".encode()
    with connect(
        to, f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + length + b"\r\n"
    ) as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def test_invalid_http_gets_an_error_sentence() -> None:
    with running() as found, connect(found, b"\x16\x03\x01 hello\r\n\r\n") as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 400
        assert response.read().startswith(b"expected an HTTP request, got another: ")


def test_all_addresses_of_version_6_include_those_of_version_4() -> None:
    with running("::") as found:
        assert answer(found) == (200, b"hello")


def test_no_route_takes_a_larger_body_than_the_server() -> None:
    assert max(most for _, most in MAX_BODIES) == MAX_BODY
    assert max_body("/api/uploads/<upload>/files/<int:file>") == 16 * 2**20
    assert max_body("/api/uploads/<upload>/import") == MAX_BODY
    assert max_body("/api/jobs") == max_body("/api/queries") == 2**20
