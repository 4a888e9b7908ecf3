"""Settings of a Convscope installation, all read from the environment.

`SETTINGS` is the single table: docs/settings.md and `convscope --help` are generated from it, and a test
keeps them in sync.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIN_PASSWORD = 8
MAX_URL_PREFIX = 200
# Modules of `workers.models.speedups`: same results up to rounding, in less time.
SPEEDUPS = ("folding", "pointwise", "runtime")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingError(ValueError):
    """A setting has an invalid value; the message names the setting, the value and what is valid."""


@dataclass(frozen=True)
class Setting:
    """One environment variable: its name, its default as a user would type it, and its help text."""

    name: str
    default: str
    help: str


SETTINGS: tuple[Setting, ...] = (
    Setting("CONVSCOPE_HOME", "./var", "Folder where Convscope stores everything."),
    Setting("CONVSCOPE_HOST", "127.0.0.1", "Address the dashboard listens on."),
    Setting("CONVSCOPE_PORT", "8050", "Port the dashboard listens on."),
    Setting(
        "CONVSCOPE_HUB_TIMEOUT",
        "20",
        "Timeout for connecting to a model hub, in seconds.",
    ),
    Setting(
        "CONVSCOPE_LEDGER_URL",
        "",
        "PostgreSQL database for jobs and results (`postgresql://…`); if empty, an SQLite file in the home folder.",
    ),
    Setting(
        "CONVSCOPE_REDIS_URL",
        "",
        "Redis server for messages to workers (`redis://…`); if empty, `convscope run` starts its own.",
    ),
    Setting(
        "CONVSCOPE_LEASE",
        "30",
        "Seconds without a heartbeat before a job is reassigned to another worker.",
    ),
    Setting("CONVSCOPE_ATTEMPTS", "5", "Maximum number of attempts before a job fails."),
    Setting("CONVSCOPE_LOADED_MODELS", "3", "Maximum number of models a worker keeps loaded."),
    Setting(
        "CONVSCOPE_SPEEDUPS",
        "all",
        "Optimizations of torch, separated by commas: `folding` (batch normalization merged into "
        "convolutions, for attacks), "
        "`pointwise` (linear layers of ConvNeXt as 1 x 1 convolutions), `runtime` (settings of memory allocator and "
        "OpenMP, for which a command restarts itself); `all` or `none`.",
    ),
    Setting(
        "CONVSCOPE_ATLAS_MEMORY",
        "2GB",
        "Memory limit of DuckDB per process, in DuckDB's notation (`512MB`, `4GB`).",
    ),
    Setting("CONVSCOPE_SQL_MEMORY", "1GB", "Memory limit per user query, at least 256MB."),
    Setting("CONVSCOPE_SQL_SECONDS", "30", "Time limit per user query, in seconds."),
    Setting("CONVSCOPE_SQL_AT_ONCE", "3", "Maximum number of concurrent user queries; others wait."),
    Setting(
        "CONVSCOPE_PASSWORD",
        "",
        "Password of the dashboard, at least 8 characters; without one there is no login, and only loopback is served.",
    ),
    Setting(
        "CONVSCOPE_USER_HEADER",
        "",
        "Header in which an authenticating reverse proxy names the user (`X-Remote-User`); trusted only "
        "from `CONVSCOPE_PROXY`.",
    ),
    Setting(
        "CONVSCOPE_PROXY",
        "127.0.0.1,::1",
        "Addresses or networks of trusted reverse proxies. Once this or `CONVSCOPE_USER_HEADER` is set, "
        "their `X-Forwarded-For` and `X-Forwarded-Proto` headers are trusted.",
    ),
    Setting(
        "CONVSCOPE_HOSTS",
        "",
        "Host names, separated by commas, that the dashboard accepts in addition to its own address (on "
        "loopback `localhost`, `127.0.0.1` and `[::1]`).",
    ),
    Setting(
        "CONVSCOPE_URL_PREFIX",
        "",
        "Path under which a reverse proxy serves the dashboard (`/lab/convscope`); all its addresses begin with it.",
    ),
    Setting(
        "CONVSCOPE_JOBS_PER_MINUTE",
        "120",
        "Maximum number of jobs a user may submit per minute in the dashboard.",
    ),
    Setting(
        "CONVSCOPE_SQL_PER_MINUTE",
        "120",
        "Maximum number of SQL statements a user may run per minute in the dashboard.",
    ),
    Setting("CONVSCOPE_UPLOAD_GB", "20", "Maximum size of one image upload in the browser, in gigabytes."),
    Setting(
        "CONVSCOPE_IMAGE_ROOTS",
        "",
        "Folders from which the browser may import images, joined as in PATH (`/data:/mnt/photos`).",
    ),
)


@dataclass(frozen=True)
class Settings:
    """The parsed settings. Units: `hub_timeout` and `lease` in seconds, `port` a TCP port.

    An empty `ledger_url` means SQLite in the home, an empty `redis_url` the broker that `convscope run`
    starts. `proxies` is empty unless one of the two proxy settings is set; otherwise no forwarding header
    is trusted.
    """

    home: Path
    host: str
    port: int
    hub_timeout: float
    atlas_memory: str
    ledger_url: str = ""
    redis_url: str = ""
    lease: float = 30.0
    attempts: int = 5
    loaded_models: int = 3
    sql_memory: str = "1GB"
    sql_seconds: float = 30.0
    sql_at_once: int = 3
    password: str = field(default="", repr=False)
    user_header: str = ""
    proxies: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    url_prefix: str = ""
    jobs_per_minute: int = 120
    sql_per_minute: int = 120
    upload_gb: int = 20
    image_roots: tuple[Path, ...] = ()
    speedups: frozenset[str] = frozenset(SPEEDUPS)


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Parse `environment` (default: the process's environment).

    Raises:
        SettingError: a value cannot be parsed.
    """
    given = os.environ if environment is None else environment
    values = {setting.name: given.get(setting.name) or setting.default for setting in SETTINGS}
    try:
        home = Path(values["CONVSCOPE_HOME"]).expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:
        raise SettingError(f"CONVSCOPE_HOME: expected a folder, got {values['CONVSCOPE_HOME']!r}") from error
    return Settings(
        home=home,
        host=values["CONVSCOPE_HOST"],
        port=_number(values, "CONVSCOPE_PORT", low=0, high=65535),
        hub_timeout=float(_number(values, "CONVSCOPE_HUB_TIMEOUT", low=1, high=3600)),
        atlas_memory=_memory(values, "CONVSCOPE_ATLAS_MEMORY"),
        ledger_url=_url(values, "CONVSCOPE_LEDGER_URL", ("postgresql", "postgres")),
        redis_url=_url(values, "CONVSCOPE_REDIS_URL", ("redis", "rediss", "redis+socket")),
        lease=float(_number(values, "CONVSCOPE_LEASE", low=1, high=3600)),
        attempts=_number(values, "CONVSCOPE_ATTEMPTS", low=1, high=100),
        loaded_models=_number(values, "CONVSCOPE_LOADED_MODELS", low=1, high=100),
        sql_memory=_memory(values, "CONVSCOPE_SQL_MEMORY", least=256),
        sql_seconds=float(_number(values, "CONVSCOPE_SQL_SECONDS", low=1, high=3600)),
        sql_at_once=_number(values, "CONVSCOPE_SQL_AT_ONCE", low=1, high=6),
        password=_password(values, "CONVSCOPE_PASSWORD"),
        user_header=_header(values, "CONVSCOPE_USER_HEADER"),
        proxies=_networks(values, "CONVSCOPE_PROXY")
        if given.get("CONVSCOPE_PROXY") or values["CONVSCOPE_USER_HEADER"]
        else (),
        hosts=_hosts(values, "CONVSCOPE_HOSTS"),
        url_prefix=url_prefix(values["CONVSCOPE_URL_PREFIX"], "CONVSCOPE_URL_PREFIX"),
        jobs_per_minute=_number(values, "CONVSCOPE_JOBS_PER_MINUTE", low=1, high=1_000_000),
        sql_per_minute=_number(values, "CONVSCOPE_SQL_PER_MINUTE", low=1, high=1_000_000),
        upload_gb=_number(values, "CONVSCOPE_UPLOAD_GB", low=1, high=10_000),
        image_roots=_folders(values, "CONVSCOPE_IMAGE_ROOTS"),
        speedups=_speedups(values, "CONVSCOPE_SPEEDUPS"),
    )


def _password(values: Mapping[str, str], name: str) -> str:
    """Parse a password; error messages do not repeat it."""
    password = values[name]
    if password and (len(password.strip()) < MIN_PASSWORD or not password.isprintable()):
        raise SettingError(
            f"{name}: expected {MIN_PASSWORD} or more printable characters, got {len(password)} characters"
            + ("" if password.isprintable() else ", not all printable")
        )
    return password


def _header(values: Mapping[str, str], name: str) -> str:
    """Parse a header name; refuses headers that browsers and proxies send anyway, since they do not identify a user."""
    header = values[name].strip()
    if header and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", header):
        raise SettingError(
            f"{name}: expected the name of a header such as X-Remote-User, got {values[name]!r}"
        )
    known = (
        "host",
        "cookie",
        "authorization",
        "origin",
        "referer",
        "content-type",
        "content-length",
        "user-agent",
    )
    if header.lower() in known or header.lower().startswith(("sec-", "x-forwarded-", "accept")):
        raise SettingError(f"{name}: expected a header that only the proxy sets, got {header!r}")
    return header


def _networks(values: Mapping[str, str], name: str) -> tuple[Network, ...]:
    found = []
    for word in _words(values[name]):
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError as error:
            raise SettingError(
                f"{name}: expected addresses or networks such as 127.0.0.1,10.0.0.0/8, got {word!r}"
            ) from error
    return tuple(found)


def _hosts(values: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Host names as browsers send them: lower case, IPv6 addresses in brackets."""
    found = []
    for word in _words(values[name].lower()):
        bare = word.removeprefix("[").removesuffix("]")
        if ":" in bare and _is_address(bare):
            found.append(f"[{ipaddress.ip_address(bare).compressed}]")
        elif re.fullmatch(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", word):
            found.append(word)
        else:
            raise SettingError(
                f"{name}: expected host names such as lab.example.org, without a port, got {word!r}"
            )
    return tuple(found)


def url_prefix(given: str, name: str) -> str:
    """Normalize a URL path prefix: `/lab/convscope`, empty for none. `name` is the setting or option it came from.

    Raises:
        SettingError: it is not a path of letters, digits and `-._~`.
    """
    prefix = given.strip().rstrip("/")
    parts = prefix.split("/")[1:]
    plain = all(re.fullmatch(r"[A-Za-z0-9._~-]+", part) and part.strip(".") for part in parts)
    if prefix and not (prefix.startswith("/") and plain and len(prefix) <= MAX_URL_PREFIX):
        raise SettingError(
            f"{name}: expected a path such as /lab/convscope, of letters, digits and -._~, got {given!r}"
        )
    return prefix


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def _speedups(values: Mapping[str, str], name: str) -> frozenset[str]:
    words = _words(values[name])
    if words == ["all"]:
        return frozenset(SPEEDUPS)
    if words == ["none"]:
        return frozenset()
    if not words or not set(words) <= set(SPEEDUPS):
        raise SettingError(
            f"{name}: expected all, none or some of {', '.join(SPEEDUPS)}, got {values[name]!r}"
        )
    return frozenset(words)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _url(values: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str:
    """Parse a URL; error messages do not repeat it, because it may contain a password."""
    scheme, separator, rest = values[name].partition("://")
    if not values[name]:
        return ""
    if not separator or not rest or scheme.split("+psycopg")[0] not in schemes:
        raise SettingError(f"{name}: expected a URL that begins with {schemes[0]}://, got another one")
    return values[name].replace("postgres://", "postgresql://", 1)


def _folders(values: Mapping[str, str], name: str) -> tuple[Path, ...]:
    """Parse absolute folders, which need not exist yet. Relative ones would mean nothing to other processes."""
    given = [part for part in values[name].split(os.pathsep) if part.strip()]
    folders = []
    for part in given:
        folder = Path(part.strip()).expanduser()
        if not folder.is_absolute() or "\0" in part:
            raise SettingError(
                f"{name}: expected absolute paths of folders joined by {os.pathsep!r}, got {part!r}"
            )
        folders.append(folder.resolve())
    return tuple(dict.fromkeys(folders))


def _memory(values: Mapping[str, str], name: str, *, least: int = 128) -> str:
    """Parse a memory limit. DuckDB needs about 100 MB to publish, and an SQL process uses 120 MB."""
    match = re.fullmatch(r"([0-9]{1,6})\s*(MB|GB|TB|MiB|GiB|TiB)", values[name].strip())
    if match is None or int(match[1]) * (1 if match[2].startswith("M") else 1000) < least:
        raise SettingError(
            f"{name}: expected a size such as 512MB or 4GB, at least {least}MB, got {values[name]!r}"
        )
    return values[name].strip()


def _number(values: Mapping[str, str], name: str, *, low: int, high: int) -> int:
    try:
        number = int(values[name])
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise SettingError(f"{name}: expected a whole number from {low} to {high}, got {values[name]!r}")
    return number
