"""Settings of a Convscope installation, all read from the environment.

`SETTINGS` is the one table: the README's table and `convscope --help` are written from it, and a test
holds them together.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names the setting, the value and the choice."""


@dataclass(frozen=True)
class Setting:
    """One environment variable: its name, its default as a person would type it, and what it does."""

    name: str
    default: str
    help: str


SETTINGS: tuple[Setting, ...] = (
    Setting("CONVSCOPE_HOME", "./var", "Folder of everything Convscope stores."),
    Setting("CONVSCOPE_HOST", "127.0.0.1", "Address the dashboard listens on."),
    Setting("CONVSCOPE_PORT", "8050", "Port the dashboard listens on."),
    Setting(
        "CONVSCOPE_HUB_TIMEOUT",
        "20",
        "Seconds to wait for a model hub before saying that it cannot be reached.",
    ),
    Setting(
        "CONVSCOPE_LEDGER_URL",
        "",
        "PostgreSQL database of jobs and results (`postgresql://…`); without one, an SQLite file in the home.",
    ),
    Setting(
        "CONVSCOPE_REDIS_URL",
        "",
        "Redis that carries messages to workers (`redis://…`); without one, `convscope run` starts its own.",
    ),
    Setting(
        "CONVSCOPE_LEASE",
        "30",
        "Seconds without a sign of life after which a worker's job is given to another.",
    ),
    Setting("CONVSCOPE_ATTEMPTS", "5", "Times a job is tried before it counts as failed."),
    Setting("CONVSCOPE_LOADED_MODELS", "3", "Most models a worker keeps loaded."),
    Setting(
        "CONVSCOPE_ATLAS_MEMORY",
        "2GB",
        "Most memory DuckDB may take in one process, in DuckDB's words (`512MB`, `4GB`).",
    ),
    Setting("CONVSCOPE_SQL_MEMORY", "1GB", "Most memory of a query that a person wrote."),
    Setting("CONVSCOPE_SQL_SECONDS", "30", "Longest time of a query that a person wrote on the SQL page."),
    Setting("CONVSCOPE_SQL_AT_ONCE", "3", "Queries of people that run at once; others wait."),
)


@dataclass(frozen=True)
class Settings:
    """The settings in force, parsed. Units: `hub_timeout` and `lease` in seconds, `port` a TCP port.

    An empty `ledger_url` means SQLite in the home, an empty `redis_url` the broker that `convscope run` starts.
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


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Parse `environment` (default: the process's own).

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
        sql_memory=_memory(values, "CONVSCOPE_SQL_MEMORY"),
        sql_seconds=float(_number(values, "CONVSCOPE_SQL_SECONDS", low=1, high=3600)),
        sql_at_once=_number(values, "CONVSCOPE_SQL_AT_ONCE", low=1, high=6),
    )


def _url(values: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str:
    """The value is not repeated where it is refused: it may hold a password."""
    scheme, separator, rest = values[name].partition("://")
    if not values[name]:
        return ""
    if not separator or not rest or scheme.split("+psycopg")[0] not in schemes:
        raise SettingError(f"{name}: expected a URL that begins with {schemes[0]}://, got another one")
    return values[name].replace("postgres://", "postgresql://", 1)


def _memory(values: Mapping[str, str], name: str) -> str:
    """DuckDB needs some 100 MB to publish; below that it fails in the middle."""
    match = re.fullmatch(r"([0-9]{1,6})\s*(MB|GB|TB|MiB|GiB|TiB)", values[name].strip())
    if match is None or int(match[1]) * (1 if match[2].startswith("M") else 1000) < 128:
        raise SettingError(
            f"{name}: expected a size such as 512MB or 4GB, at least 128MB, got {values[name]!r}"
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
