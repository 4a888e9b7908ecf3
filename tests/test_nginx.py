"""docker/nginx.conf, run by a real nginx in front of a real dashboard."""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import served
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.settings import Settings, read_settings

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "docker" / "nginx.conf"
NAME = "convscope.lab.example.org"
NGINX = shutil.which("nginx") or next(iter(map(str, Path("/usr/sbin").glob("nginx"))), None)
ADA = {"Authorization": "Basic " + base64.b64encode(b"ada:analytical engine").decode()}
# Larger than the socket buffers together, and slow to finish.
STREAM = "/download/sql.csv?q=SELECT%20i,%20repeat(%27x%27,%20200)%20AS%20x%20FROM%20range(2000000)%20t(i)"

pytestmark = pytest.mark.skipif(
    NGINX is None,
    reason="no nginx is installed: apt-get install nginx-light, and docker/nginx.conf is tried with it",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout.strip()


def changed(folder: Path, *, convscope: str, port: int, plain: int) -> str:
    """Return the file as an administrator would edit it for this machine: each line marked CHANGE, and the ports."""
    found = CONFIGURATION.read_text()
    for words, instead in [
        ("server 127.0.0.1:8050;", f"server {convscope};"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/nginx/tls/convscope.crt", str(folder / "crt")),
        ("/etc/nginx/tls/convscope.key", str(folder / "key")),
        ("/etc/nginx/convscope.users", str(folder / "users")),
    ]:
        assert words in found, words
        found = found.replace(words, instead)
    return found


def below_a_path(file: str) -> str:
    """Return the file with its locations replaced by those that docs/lab.md gives for a URL path."""
    page = (ROOT / "docs" / "lab.md").read_text().partition("## Below a path of a site")[2]
    instead = next(
        block for block in re.findall(r"```nginx\n(.*?)```", page, re.DOTALL) if "location" in block
    )
    return file[: file.index("    location / {")] + instead + "}\n"


class Lab:
    """An nginx with the dashboard behind it."""

    def __init__(self, port: int, plain: int, folder: Path) -> None:
        self.port, self.plain, self.folder = port, plain, folder

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)

    def ask(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Return status, headers in lower case, and text."""
        connection = self.connection()
        connection.request(method, path, body, {"Host": f"{NAME}:{self.port}"} | (headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("lab"))})
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted")
    with running_nginx(tmp_path_factory.mktemp("nginx"), settings) as found:
        yield found


@contextlib.contextmanager
def running_nginx(folder: Path, settings: Settings, prefix: str = "") -> Iterator[Lab]:
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
            "-keyout", str(folder / "key"), "-out", str(folder / "crt"))  # fmt: skip
    (folder / "users").write_text("ada:" + openssl("passwd", "-apr1", "analytical engine") + "\n")
    port, plain = free_port(), free_port()
    with served(
        settings, CONVSCOPE_USER_HEADER="X-Remote-User", CONVSCOPE_HOSTS=NAME, CONVSCOPE_URL_PREFIX=prefix
    ) as url:
        site = folder / "convscope.conf"
        file = changed(folder, convscope=url.removeprefix("http://"), port=port, plain=plain)
        site.write_text(below_a_path(file) if prefix else file)
        main = folder / "nginx.conf"
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main.write_text(
            ("user root;" if os.getuid() == 0 else "")
            + f"daemon off; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\n"
            f"http {{ access_log off; {temporary} include {site}; }}\n"
        )
        checked = subprocess.run(
            [str(NGINX), "-t", "-c", str(main)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        assert "warn" not in checked.stderr
        process = subprocess.Popen([str(NGINX), "-c", str(main)])
        try:
            deadline = time.monotonic() + 20
            while not answers(port):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield Lab(port, plain, folder)
        finally:
            process.terminate()
            process.wait(20)


def test_plain_http_leads_to_https(lab: Lab) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lab.plain, timeout=20)
    connection.request("GET", "/jobs?a=b", headers={"Host": NAME})
    answer = connection.getresponse()
    connection.close()
    assert (answer.status, answer.getheader("Location")) == (301, f"https://{NAME}/jobs?a=b")


@pytest.mark.parametrize("headers", [{}, {"X-Remote-User": "ada"}, {"X_Remote_User": "ada"}])
def test_every_request_needs_nginxs_login(lab: Lab, headers: dict[str, str]) -> None:
    for path in ("/", "/api/jobs", "/_dash-layout", "/assets/overview.css"):
        assert lab.ask(path, headers)[0] == 401


@pytest.mark.parametrize(
    "forged",
    [{}, {"X-Remote-User": "root"}, {"x-remote-user": "root"}, {"X_Remote_User": "root"},
     {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}],
)  # fmt: skip
def test_the_user_is_the_one_logged_in_at_nginx_despite_forged_headers(
    lab: Lab, forged: dict[str, str]
) -> None:
    status, headers, text = lab.ask("/_dash-layout", ADA | forged)
    assert status == 200
    assert "Logged in as ada" in text
    assert "root" not in text
    assert headers["strict-transport-security"] == "max-age=31536000", "HTTPS was passed on"


@pytest.mark.parametrize(
    "path", ["/assets/../health.json", "/assets/%2e%2e/health.json", "/api/jobs/../../health.json"]
)
def test_health_is_open_and_no_way_around_the_login(lab: Lab, path: str) -> None:
    assert json.loads(lab.ask("/health.json")[2]) == {"ok": True}
    forged = {"Authorization": "Basic " + base64.b64encode(b"root:").decode()}
    assert lab.ask(path, forged)[2] in ('{"ok":true}\n', '{"ok": true}\n') or lab.ask(path, forged)[0] in (
        400,
        401,
    )


def test_the_pages_work_through_it_and_other_sites_are_refused(lab: Lab) -> None:
    status, _, page = lab.ask("/?model=synthetic&images=painted", ADA)
    assert status == 200
    assert "_dash-config" in page
    here = {"Origin": f"https://{NAME}:{lab.port}", "Content-Type": "application/json"}
    assert lab.ask("/api/jobs", ADA | here, "POST", "{}")[0] == 400, "reached: the body asks for nothing"
    status, _, text = lab.ask("/api/jobs", ADA | here | {"Origin": "https://evil.example"}, "POST", "{}")
    assert (status, "https://evil.example" in text) == (403, True)
    assert lab.ask("/jobs", ADA | {"Host": "evil.example"})[0] == 400


def test_a_result_comes_while_it_is_read_without_a_copy_on_nginx_s_disk(lab: Lab) -> None:
    connection = lab.connection()
    connection.request("GET", STREAM, headers=ADA | {"Host": f"{NAME}:{lab.port}"})
    begun = time.monotonic()
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read(1 << 16).startswith(b"i,x")
    assert time.monotonic() - begun < 5, "the first rows do not wait for the last"
    time.sleep(2)  # while the client does not read
    assert [file for file in (lab.folder / "proxy").rglob("*") if file.is_file()] == []
    connection.close()


@pytest.mark.parametrize(
    "begin",
    [b"GET /jobs HTTP/1.1\r\n", b"POST /api/jobs HTTP/1.1\r\nContent-Length: 1000\r\n%s\r\n{"],
    ids=["headers", "body"],
)
def test_connections_that_stall_at_nginx_block_nobody(lab: Lab, begin: bytes) -> None:
    user = f"Host: {NAME}:{lab.port}\r\nAuthorization: {ADA['Authorization']}\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(48):  # three times the dashboard's number of threads
            held = lab.connection()
            stack.callback(held.close)
            held.connect()
            held.sock.sendall(begin.replace(b"%s", user))
        for _ in range(10):
            begun = time.monotonic()
            assert lab.ask("/api/jobs", ADA)[0] == 200
            assert time.monotonic() - begun < 10


def test_below_a_path_of_the_site_all_that_is_named_is_below_it(tmp_path: Path, settings: Settings) -> None:
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted")
    prefix = "/lab/convscope"
    with running_nginx(tmp_path, settings, prefix) as lab:
        assert lab.ask(f"{prefix}/")[0] == 401
        assert "Convscope" not in lab.ask("/", ADA)[2], "the rest of the site is nginx's"
        assert json.loads(lab.ask(f"{prefix}/health.json")[2]) == {"ok": True}
        status, headers, _ = lab.ask(f"{prefix}/", ADA)
        assert (status, headers["location"]) == (302, f"{prefix}/?model=synthetic&images=painted")
        page = lab.ask(headers["location"], ADA)[2]
        addresses = re.findall(r'(?:href|src)="(/[^"]*)"', page)
        assert len(addresses) > 10
        for address in addresses:
            assert address.startswith(f"{prefix}/")
            assert lab.ask(address, ADA)[0] == 200, address
        here = {"Origin": f"https://{NAME}:{lab.port}", "Content-Type": "application/json"}
        files = json.dumps({"files": [{"name": "a.png", "size": 3}]})
        status, headers, _ = lab.ask(f"{prefix}/api/uploads", ADA | here, "POST", files)
        assert (status, headers["location"].startswith(f"{prefix}/api/uploads/")) == (201, True)
        assert lab.ask(headers["location"], ADA)[0] == 200


def test_the_page_describes_the_nginx_file() -> None:
    page, file = (ROOT / "docs" / "lab.md").read_text(), CONFIGURATION.read_text()
    for row in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", row):
            assert f"{words};" in file, words
    for words in ("proxy_set_header Host $http_host", "proxy_set_header X-Remote-User $remote_user"):
        assert words in file
