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


def test_the_readme_documents_exactly_the_settings_there_are() -> None:
    rows = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `CONVSCOPE_")
    ]
    assert rows == [f"| `{setting.name}` | `{setting.default}` | {setting.help} |" for setting in SETTINGS]
