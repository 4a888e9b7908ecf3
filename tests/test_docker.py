"""The container files, as far as they can be tested without a container engine.

The compose file's commands and environment run here through the image's own entrypoint, against a real server
of the Redis protocol over TCP and a real PostgreSQL.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from postgres import installed_postgres
from running import kill_all, wait
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.ledger.engine import Ledger
from db.settings import Settings, read_settings
from workers.queue.broker import server_command

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PASSWORD = "correct horse"


def instructions() -> list[tuple[str, str]]:
    """Return instruction and arguments of each step of the Dockerfile, with continuation lines joined."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def given(name: str) -> list[str]:
    return [words for instruction, words in instructions() if instruction == name]


def test_the_image_is_pinned_slim_and_runs_as_nobody_special() -> None:
    assert given("FROM") == ["python:3.11-slim-bookworm"]
    names = [name for name, _ in instructions()]
    assert names[-1] == "CMD"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert given("USER") == ["convscope"]
    assert all(json.loads(words) for words in given("ENTRYPOINT") + given("CMD")), (
        "the form that passes signals on"
    )
    assert json.loads(given("HEALTHCHECK")[0].split("CMD", 1)[1]) == ["python", "docker/health.py"]
    for words in given("RUN"):
        assert "sudo" not in words
        if "apt-get install" in words:
            assert "--no-install-recommends" in words
            assert "rm -rf /var/lib/apt/lists/*" in words
    assert "PIP_NO_CACHE_DIR=1" in given("ENV")[0]


def test_the_variant_of_the_image_is_one_of_two() -> None:
    script = next(words for words in given("RUN") if "case" in words)
    case = script[script.index("case") : script.index("esac") + 4] + '; echo "$index"'
    for variant, expected in [("cpu", "/whl/cpu"), ("cuda", "pypi.org")]:
        said = subprocess.run(
            ["bash", "-c", case], env={"VARIANT": variant}, capture_output=True, text=True, check=True
        )
        assert expected in said.stdout
    refused = subprocess.run(
        ["bash", "-c", case], env={"VARIANT": "rocm"}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "expected cpu or cuda, got 'rocm'" in refused.stderr


def test_the_entrypoint_is_sound_shell_and_names_a_folder_that_it_cannot_write_to(tmp_path: Path) -> None:
    subprocess.run(["sh", "-n", str(DOCKER / "entrypoint.sh")], check=True)
    assert os.access(DOCKER / "entrypoint.sh", os.X_OK)
    refused = subprocess.run(
        [str(DOCKER / "entrypoint.sh"), "--help"],
        env={**os.environ, "CONVSCOPE_HOME": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "cannot be written to by user" in refused.stderr


def test_a_read_only_home_is_read_by_the_entrypoint_s_sql_and_serve_and_no_other(
    settings: Settings,
    ledger: Ledger,
    only_read: Callable[[Path], contextlib.AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    import_pictures(settings, painted_pictures(2), image_set="painted")
    ledger.close()
    (tmp_path / "temporary").mkdir()

    def started(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(DOCKER / "entrypoint.sh"), *words],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "CONVSCOPE_HOME": str(settings.home),
                "TMPDIR": str(tmp_path / "temporary"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with only_read(settings.home):
        rows, said = started("sql", "--csv", "SELECT count(*) AS n FROM images").communicate(timeout=60)
        assert rows.split() == ["n", "2"], said
        run = started("run")
        assert "cannot be written to by user" in run.communicate(timeout=60)[1]
        assert run.returncode == 1
        serve = started("serve", "--port", "0")
        try:
            assert serve.stdout is not None
            line = next(line for line in serve.stdout if "Convscope is at" in line)
            address = re.search(r"http://\S+", line)
            assert address is not None
            with urllib.request.urlopen(f"{address[0]}/health.json", timeout=20) as answer:
                assert answer.status == 200
        finally:
            serve.terminate()
            serve.communicate(timeout=30)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


def test_the_compose_file_names_settings_that_there_are_and_pins_its_images() -> None:
    from db.settings import SETTINGS

    services = compose()["services"]
    assert set(services) == {"web", "worker", "redis", "postgres"}
    known = {setting.name for setting in SETTINGS}
    for name in ("web", "worker"):
        assert set(services[name]["environment"]) <= known
        assert set(services[name]["depends_on"]) == {"redis", "postgres"}
        assert "ports" not in services["worker"], "or it could not be scaled"
    for name in ("redis", "postgres"):
        assert re.fullmatch(r"\w+:\d+-alpine", services[name]["image"])
        assert services[name]["healthcheck"]
    assert all(port.startswith("127.0.0.1:") for port in services["web"]["ports"]), "TLS is a proxy's"


def test_the_compose_file_requires_a_password_for_the_web_only() -> None:
    services = compose()["services"]
    assert re.fullmatch(
        r"\$\{CONVSCOPE_PASSWORD:\?.+\}", services["web"]["environment"]["CONVSCOPE_PASSWORD"]
    )
    assert "CONVSCOPE_PASSWORD" not in services["worker"]["environment"]
    assert set(services["worker"]["environment"]) < set(services["web"]["environment"])


def test_the_image_serves_nobody_without_a_password(tmp_path: Path) -> None:
    """As with `docker run convscope`: the image listens on all addresses."""
    found = dict(re.findall(r"(CONVSCOPE_\w+)=(\S+)", " ".join(given("ENV"))))
    refused = subprocess.run(
        [str(DOCKER / "entrypoint.sh"), *json.loads(given("CMD")[0])],
        cwd=ROOT,
        env={
            **os.environ,
            **found,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CONVSCOPE_HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert "set CONVSCOPE_PASSWORD" in refused.stderr


@pytest.fixture
def broker(settings: Settings) -> Iterator[int]:
    """Port of a server of the Redis protocol over TCP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [shutil.which("redis-server") or server_command(settings)[0], "--port", str(port), "--save", ""]
    settings.home.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(words, cwd=settings.home, stdout=subprocess.DEVNULL)
    yield port
    server.terminate()
    server.wait(10)


@pytest.fixture
def database() -> Iterator[Path]:
    """Socket folder of a PostgreSQL server."""
    with installed_postgres() as (_, folder):
        yield folder


def asking(address: str) -> urllib.request.Request:
    """Send a request with the password."""
    words = base64.b64encode(f"anybody:{PASSWORD}".encode()).decode()
    return urllib.request.Request(address, headers={"Authorization": f"Basic {words}"})


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_web_and_worker_of_the_compose_file_do_a_job_together(
    settings: Settings, broker: int, database: Path, tmp_path: Path
) -> None:
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted", model="synthetic")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    try:
        for name in ("web", "worker"):
            service = compose()["services"][name]
            environment = {
                key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", re.sub(r"\$\{\w+:\?[^}]*\}", PASSWORD, value))
                .replace("redis:6379", f"127.0.0.1:{broker}")
                .replace(
                    "convscope:convscope@postgres:5432/convscope", f"convscope@/postgres?host={database}"
                )
                for key, value in service["environment"].items()
            }
            assert "@postgres:" not in str(environment), "a host was not replaced"
            (tmp_path / name).mkdir()
            started.append(
                subprocess.Popen(
                    [str(DOCKER / "entrypoint.sh"), *service["command"]],
                    cwd=ROOT,
                    env={
                        **os.environ,
                        **environment,
                        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                        "CONVSCOPE_HOME": str(settings.home),
                        "CONVSCOPE_PORT": str(port),
                        "TMPDIR": str(tmp_path / name),
                    },
                )
            )
        url = f"http://127.0.0.1:{port}"

        def status() -> Any:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(asking(f"{url}/status.json"), timeout=5) as answer,
            ):
                return json.loads(answer.read())["work"]
            return {}

        wait(
            lambda: status().get("workers") == 1 and status()["broker"],
            seconds=60,
            what=lambda: str(status()),
        )
        body = {
            "kind": "saliency",
            "models": ["synthetic"],
            "images": "painted",
            "ids": [0],
            "method": "gradient",
        }
        asked = asking(f"{url}/api/jobs")
        asked.data, asked.method = json.dumps(body).encode(), "POST"
        asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked, timeout=20) as answer:
            job = json.loads(answer.read())
        assert job["notice"] == "job 1 is queued"

        def state() -> str:
            with urllib.request.urlopen(asking(f"{url}/api/jobs/1"), timeout=20) as answer:
                return str(json.loads(answer.read())["state"])

        # the model in the atlas is made up, so the worker finds nothing to load and reports that
        wait(lambda: state() == "failed", seconds=60, what=state)
        for name in ("web", "worker"):
            health = subprocess.run(
                [sys.executable, "docker/health.py"],
                cwd=ROOT,
                env={
                    **os.environ,
                    **environment,
                    "PYTHONPATH": str(ROOT),
                    "CONVSCOPE_HOME": str(settings.home),
                    "CONVSCOPE_PORT": str(port),
                    "TMPDIR": str(tmp_path / name),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            assert health.returncode == 0, f"{name}: {health.stdout}{health.stderr}"
        for process in started:
            process.terminate()
        for process in started:
            process.wait(15)
        deadline = time.monotonic() + 5
        while status() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status() == {}
    finally:
        for process in started:
            process.kill()
        kill_all(settings.home)


def test_settings_of_the_image_are_those_of_the_entrypoint() -> None:
    words = " ".join(given("ENV"))
    found = dict(re.findall(r"(CONVSCOPE_\w+)=(\S+)", words))
    assert read_settings(found).home == Path("/data")
    assert read_settings(found).host == "0.0.0.0"
