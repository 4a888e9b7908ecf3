"""Settings are parsed and validated; their table is tested in `tests/test_documented_tables.py`."""

from pathlib import Path

import pytest

from db.settings import SettingError, read_settings


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = read_settings({})
    assert settings.home == (Path.cwd() / "var").resolve()
    assert (settings.host, settings.port) == ("127.0.0.1", 8050)


def test_an_empty_value_is_the_default() -> None:
    assert read_settings({"CONVSCOPE_PORT": ""}).port == 8050


@pytest.mark.parametrize("port", ["http", "-1", "70000", "80.5"])
def test_an_invalid_port_is_refused_by_name(port: str) -> None:
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
def test_an_invalid_url_is_refused_without_repeating_it(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: {expected}") as caught:
        read_settings({name: value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["seven77", "%", "        ", "tab\tinside", "line\nbreak"])
def test_an_invalid_password_is_refused_without_repeating_it(password: str) -> None:
    with pytest.raises(
        SettingError, match="CONVSCOPE_PASSWORD: expected 8 or more printable characters"
    ) as caught:
        read_settings({"CONVSCOPE_PASSWORD": password})
    assert password not in str(caught.value)


@pytest.mark.parametrize("given", ["/lab/convscope", "/lab/convscope/", " /lab/convscope "])
def test_a_prefix_of_addresses_ends_without_a_slash(given: str) -> None:
    assert read_settings({"CONVSCOPE_URL_PREFIX": given}).url_prefix == "/lab/convscope"
    assert read_settings({"CONVSCOPE_URL_PREFIX": "/"}).url_prefix == ""


def test_the_password_is_not_in_the_repr_of_the_settings() -> None:
    settings = read_settings({"CONVSCOPE_PASSWORD": "correct horse"})
    assert settings.password == "correct horse"
    assert "correct horse" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "CONVSCOPE_USER_HEADER",
            "X Remote User",
            "expected the name of a header such as X-Remote-User, got",
        ),
        (
            "CONVSCOPE_USER_HEADER",
            "X_Remote_User",
            "expected the name of a header such as X-Remote-User, got",
        ),
        ("CONVSCOPE_USER_HEADER", "Cookie", "expected a header that only the proxy sets, got 'Cookie'"),
        ("CONVSCOPE_USER_HEADER", "X-Forwarded-For", "expected a header that only the proxy sets"),
        ("CONVSCOPE_PROXY", "127.0.0.1,proxy", "expected addresses or networks .*, got 'proxy'"),
        ("CONVSCOPE_PROXY", "10.0.0.1/8", "expected addresses or networks .*, got '10.0.0.1/8'"),
        ("CONVSCOPE_HOSTS", "lab.example.org:8050", "expected host names .*, without a port, got"),
        ("CONVSCOPE_HOSTS", "http://lab", "expected host names"),
        ("CONVSCOPE_HOSTS", "*", "expected host names"),
        ("CONVSCOPE_URL_PREFIX", "lab", "expected a path such as /lab/convscope"),
        ("CONVSCOPE_URL_PREFIX", "//lab", "expected a path"),
        ("CONVSCOPE_URL_PREFIX", "/lab/../x", "expected a path"),
        ("CONVSCOPE_URL_PREFIX", "/lab?x", "expected a path"),
        ("CONVSCOPE_URL_PREFIX", "https://lab/x", "expected a path"),
        ("CONVSCOPE_JOBS_PER_MINUTE", "0", "from 1 to 1000000, got '0'"),
        ("CONVSCOPE_SQL_PER_MINUTE", "many", "from 1 to 1000000, got 'many'"),
        (
            "CONVSCOPE_SPEEDUPS",
            "fold",
            "expected all, none or some of folding, pointwise, runtime, got 'fold'",
        ),
        ("CONVSCOPE_SPEEDUPS", "none,folding", "expected all, none or some of .*, got 'none,folding'"),
        ("CONVSCOPE_SPEEDUPS", ",", "expected all, none or some of"),
    ],
)
def test_invalid_access_settings_are_refused_by_name(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: .*{sentence}"):
        read_settings({name: value})


def test_a_proxy_is_believed_once_one_of_its_settings_is_set() -> None:
    assert read_settings({}).proxies == ()
    assert read_settings({"CONVSCOPE_PASSWORD": "correct horse"}).proxies == ()
    assert [str(one) for one in read_settings({"CONVSCOPE_USER_HEADER": "X-User"}).proxies] == [
        "127.0.0.1/32",
        "::1/128",
    ]
    assert [str(one) for one in read_settings({"CONVSCOPE_PROXY": "172.16.0.0/12, ::1"}).proxies] == [
        "172.16.0.0/12",
        "::1/128",
    ]


def test_speedups_are_all_in_force_unless_some_are_named() -> None:
    assert read_settings({}).speedups == {"folding", "pointwise", "runtime"}
    assert read_settings({"CONVSCOPE_SPEEDUPS": "none"}).speedups == frozenset()
    assert read_settings({"CONVSCOPE_SPEEDUPS": "runtime, folding"}).speedups == {"folding", "runtime"}


def test_heroku_style_postgres_urls_are_understood() -> None:
    found = read_settings({"CONVSCOPE_LEDGER_URL": "postgres://me@host/db"})
    assert found.ledger_url == "postgresql://me@host/db"


def test_a_home_of_nobody_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="CONVSCOPE_HOME: expected a folder, got '~nosuchperson/x'"):
        read_settings({"CONVSCOPE_HOME": "~nosuchperson/x"})
