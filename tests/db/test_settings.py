"""Settings parse, refuse and are all documented."""

from pathlib import Path

import pytest

from db.settings import SETTINGS, SettingError, read_settings

ROOT = Path(__file__).parents[2]


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = read_settings({})
    assert settings.home == (Path.cwd() / "var").resolve()
    assert (settings.host, settings.port) == ("127.0.0.1", 8050)


def test_an_empty_value_is_the_default() -> None:
    assert read_settings({"CONVSCOPE_PORT": ""}).port == 8050


@pytest.mark.parametrize("port", ["http", "-1", "70000", "80.5"])
def test_a_port_that_is_none_is_refused_by_name(port: str) -> None:
    with pytest.raises(SettingError, match=f"CONVSCOPE_PORT: .* from 0 to 65535, got '{port}'"):
        read_settings({"CONVSCOPE_PORT": port})


@pytest.mark.parametrize("size", ["lots", "1B", "-1GB", "64MB", "4", "4 gigs"])
def test_a_memory_that_duckdb_cannot_work_with_is_refused_by_name(size: str) -> None:
    with pytest.raises(SettingError, match=f"CONVSCOPE_ATLAS_MEMORY: .* at least 128MB, got '{size}'"):
        read_settings({"CONVSCOPE_ATLAS_MEMORY": size})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONVSCOPE_LEDGER_URL", "mysql://secret@host/db", "expected a URL that begins with postgresql://"),
        ("CONVSCOPE_REDIS_URL", "secret", "expected a URL that begins with redis://"),
        ("CONVSCOPE_REDIS_URL", "redis://", "expected a URL that begins with redis://"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: {expected}") as caught:
        read_settings({name: value})
    assert "secret" not in str(caught.value)


def test_heroku_style_postgres_urls_are_understood() -> None:
    found = read_settings({"CONVSCOPE_LEDGER_URL": "postgres://me@host/db"})
    assert found.ledger_url == "postgresql://me@host/db"


def test_a_home_of_nobody_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="CONVSCOPE_HOME: expected a folder, got '~nosuchperson/x'"):
        read_settings({"CONVSCOPE_HOME": "~nosuchperson/x"})


def test_the_readme_documents_exactly_the_settings_there_are() -> None:
    rows = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `CONVSCOPE_")
    ]
    assert rows == [
        f"| `{setting.name}` | {f'`{setting.default}`' if setting.default else 'none'} | {setting.help} |"
        for setting in SETTINGS
    ]
