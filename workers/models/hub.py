"""Downloads weights from a model hub in a separate process, so a stalled download cannot block the caller.

The libraries' own downloads retry and wait for minutes if a network drops packets. Here a child process
downloads into the same caches that those libraries use, and the parent watches the caches grow and stops the
child when nothing has arrived for `timeout` seconds.

Run as a script, this module is that child: `python hub.py repository ORG/NAME` or `python hub.py file URL
TARGET`.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TICK = 0.2
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")


class HubUnreachable(RuntimeError):
    """Nothing came from the hub; the message is a clause with the reason ("nothing arrived for 20 seconds")."""


def repository_in_cache(repository: str) -> Path | None:
    """Folder of a repository in the cache, None if its configuration or weights are missing."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    weights = {path.name for pattern in _WEIGHTS + _PICKLED_WEIGHTS for path in folder.glob(pattern)}
    needed = weights.copy()
    for index in folder.glob("*.index.json"):
        needed |= set(json.loads(index.read_text())["weight_map"].values())
    return folder if weights and needed == weights else None


def fetch_repository(repository: str, *, timeout: float) -> Path:
    """Folder with the configuration and weights of `repository` on the Hugging Face hub, downloaded if needed.

    Raises:
        HubUnreachable: nothing arrived for `timeout` seconds, or the hub refused.
    """
    cached = repository_in_cache(repository)
    if cached is not None:
        return cached
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    _run_child(["repository", repository], watch=cache, timeout=timeout)
    fetched = repository_in_cache(repository)
    if fetched is None:
        raise HubUnreachable("the hub's repository contains no readable weights")
    return fetched


def fetch_file(url: str, target: Path, *, timeout: float) -> Path:
    """`target`, downloaded from `url` unless it exists.

    If the name ends in a hash, as in `resnet50-0676ba61.pth`, the contents are checked against it.

    Raises:
        HubUnreachable: nothing arrived for `timeout` seconds, or the server refused.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _run_child(["file", url, str(target)], watch=target.parent, timeout=timeout)
    return target


def _run_child(arguments: list[str], *, watch: Path, timeout: float) -> None:
    environment = {
        **os.environ,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # plain HTTP writes a growing file that can be watched
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            arrived, since = _bytes_below(watch), time.monotonic()
            while child.poll() is None:
                time.sleep(_TICK)
                now = _bytes_below(watch)
                if now != arrived:
                    arrived, since = now, time.monotonic()
                elif time.monotonic() - since > timeout:
                    raise HubUnreachable(f"no data arrived for {timeout:g} seconds")
            if child.returncode != 0:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                raise HubUnreachable(lines[-1].strip() if lines else f"exit code {child.returncode}")
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


def _bytes_below(folder: Path) -> int:
    total = 0
    # The child adds and removes folders meanwhile: os.walk skips one that is gone, Path.rglob raises.
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    total += path.stat().st_size
    return total


def _download_repository(repository: str) -> None:
    from huggingface_hub import HfApi, constants, hf_hub_download

    _reach(constants.ENDPOINT)
    names = HfApi().list_repo_files(repository)
    safe = any("/" not in name and name.endswith(".safetensors") for name in names)
    weights = _WEIGHTS if safe else _PICKLED_WEIGHTS
    wanted = [name for name in names if "/" not in name and _matches(name, (*weights, "*config.json"))]
    # Weights last: an interrupted download then lacks weights, and is not mistaken for a complete one.
    for name in sorted(wanted, key=lambda name: (_matches(name, weights), not name.endswith(".json"), name)):
        hf_hub_download(repository, name)


def _reach(address: str) -> None:
    """Fail at once if `address` is unreachable: the hub's library would retry for half a minute.

    Skipped behind a proxy, since only the proxy knows whether the hub is reachable.
    """
    import socket
    import urllib.request
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port)).close()
    except OSError as error:
        raise OSError(f"no connection to {host}: {error.strerror or error}") from error


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(name, pattern) for pattern in patterns)


def _download_file(url: str, target: Path) -> None:
    import hashlib
    import re
    import shutil
    import urllib.request

    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
            promised = answer.headers.get("Content-Length")
        # urllib does not notice a connection that ends early
        if promised is not None and part.stat().st_size != int(promised):
            raise OSError(f"the connection ended after {part.stat().st_size} of {promised} bytes")
        named = re.search(r"-([0-9a-f]{8,})\.", target.name)
        if named is not None:
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not digest.startswith(named.group(1)):
                raise OSError(f"the file's SHA-256 starts with {digest[:8]}, not {named.group(1)}")
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _main(arguments: list[str]) -> int:
    try:
        if arguments[0] == "repository":
            _download_repository(arguments[1])
        else:
            _download_file(arguments[1], Path(arguments[2]))
    except Exception as error:  # the parent needs one line, whatever went wrong
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"{type(error).__name__}: {lines[0] if lines else ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # This file's folder must not shadow installed packages.
    sys.path = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    sys.exit(_main(sys.argv[1:]))
