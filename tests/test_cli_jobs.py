"""Job commands: input errors, and the life of a job that no worker takes.

What a worker makes of these jobs is tested in `tests/e2e`.
"""

import json
from pathlib import Path

import pytest
from running import command
from synthetic_atlas import add_run, import_pictures, painted_pictures

import convscope
from db.settings import Settings


@pytest.fixture
def home(settings: Settings) -> Path:
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted", model="first")
    return settings.home


def queue(home: Path, *words: str) -> str:
    """Queue a job for image 0 of model `first` and return its number."""
    made = command("saliency", "--model", "first", "--images", "painted", "--ids", "0", *words, home=home)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_a_job_is_queued_shown_cancelled_and_retried(home: Path) -> None:
    number = queue(home, "--samples", "7", "--set", "noise_level=0.2")
    assert queue(home, "--samples", "7", "--set", "noise_level=0.2") == number, "the same request is one job"
    other = queue(home, "--method", "gradient", "--target", "3")
    assert {number, other} == {"1", "2"}

    listed = command("jobs", "list", home=home).stdout.splitlines()
    assert [line.split()[0] for line in listed[-2:]] == [other, number], "newest first"
    shown = command("jobs", "show", number, home=home).stdout
    parameters = next(
        line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("parameters")
    )
    asked = json.loads(parameters)["parameters"]
    assert (asked["samples"], asked["noise_level"], asked["seed"]) == (7, 0.2, 0)

    assert command("jobs", "cancel", number, home=home).stdout == f"job {number} is cancelled\n"
    assert "cancelled" in command("jobs", "list", "--state", "cancelled", home=home).stdout
    waited = command("jobs", "wait", number, home=home)
    assert waited.returncode == 1
    assert f"job {number} was cancelled" in waited.stderr
    again = command("jobs", "retry", number, home=home)
    assert again.returncode == 0
    assert command("jobs", "list", "--state", "queued", home=home).stdout.count("queued") == 2


def test_submitting_without_a_broker_is_reported(home: Path) -> None:
    made = command("saliency", "--model", "first", "--images", "painted", "--ids", "0-3", home=home)
    assert made.returncode == 0
    assert "broker is unreachable" in made.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--ids", "9"), "painted has images 0 to 3, not 9"),
        (("--ids", "0", "--samples", "0"), "samples: expected a whole number from 1 to 1000, got 0"),
        (("--ids", "0", "--set", "sigma"), "expected NAME=VALUE, got 'sigma'"),
    ],
)
def test_an_invalid_request_is_one_sentence(home: Path, words: tuple[str, ...], sentence: str) -> None:
    made = command("saliency", "--model", "first", "--images", "painted", *words, home=home)
    assert made.returncode in (1, 2)
    assert sentence in made.stderr
    assert "Traceback" not in made.stderr
    assert made.stdout == ""


@pytest.mark.parametrize("word", ["show", "cancel", "retry", "wait"])
def test_a_job_that_there_is_not_is_one_sentence(home: Path, word: str) -> None:
    made = command("jobs", word, "7", home=home)
    assert made.returncode == 1
    assert "there is no job 7" in made.stderr
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize(
    ("words", "given"), [(("--queues", "fast"), "fast"), (("--device", "abacus"), "abacus")]
)
def test_a_worker_that_cannot_start_reports_the_reason(
    home: Path, words: tuple[str, ...], given: str
) -> None:
    made = command("worker", *words, home=home)
    assert made.returncode in (1, 2)
    assert given in made.stderr
    assert "Traceback" not in made.stderr


def attacked(home: Path, *words: str) -> str:
    """Return what `convscope attack` prints on stdout and stderr, for model `first` on `painted`."""
    made = command("attack", "--model", "first", "--images", "painted", *words, home=home)
    return f"{made.returncode} {made.stdout}{made.stderr}"


def test_attacks_are_requested_by_numbers_condition_or_for_all_images(home: Path) -> None:
    assert attacked(home).startswith("0 1\n"), "all images"
    assert attacked(home, "--ids", "0-3").startswith("0 1\n"), "the same request is one job"
    assert attacked(home, "--where", "width > 260 AND image_id <> 1").startswith("0 2\n")
    shown = command("jobs", "show", "2", home=home).stdout
    fields = next(line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("parameters"))
    asked = json.loads(fields)
    assert asked["ids"] == "0,2-3"
    assert asked["relative_to"] == "prediction"
    assert (asked["parameters"]["grid"], asked["parameters"]["ratio"]) == ("geometric", 1.5)
    fixed = attacked(home, "--ids", "0", "--epsilon", "0.03", "--relative-to", "label", "--method", "pgd")
    assert fixed.startswith("0 3\n")
    shown = command("jobs", "show", "3", home=home).stdout
    assert '"mode": "fixed", "epsilon": 0.03' in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--ids", "9"), "ids: painted has images 0 to 3, not 9"),
        (("--ids", "0", "--where", "true"), "expected only one of --ids and --where"),
        (("--where", "tint = 'red'"), 'Referenced column "tint" not found'),
        (("--where", "true) OR (true"), "is queued"),
        (("--where", "true; DROP TABLE images"), "syntax error"),
        (("--where", "name IN (SELECT content FROM read_text('/etc/passwd'))"), "read_text() is refused"),
        (("--where", "image_id NOT IN (SELECT image_id FROM attacks)"), "is queued"),
        (("--where", "width > 10000"), "'width > 10000' is true for no image of painted"),
        (("--epsilon", "0.1", "--step", "0.01"), "step: not used where mode is fixed"),
        (("--epsilon", "7"), "epsilon: expected a number from 0 to 1, got 7"),
        (("--max", "0"), "cap: expected"),
        (("--method", "cw"), "method: expected one of fgsm, pgd, got 'cw'"),
        (("--set", "levels"), "expected NAME=VALUE, got 'levels'"),
        (("--set", "levels=9-bit"), "levels: expected one of real, 8-bit, got '9-bit'"),
        (("--target", "-1"), "target: expected a class index, got -1"),
    ],
)
def test_an_invalid_attack_is_refused_in_a_sentence(
    home: Path,
    words: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Runs in this process: another one would take a second to start."""
    monkeypatch.setenv("CONVSCOPE_HOME", str(home))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        convscope.main(["attack", "--model", "first", "--images", "painted", *words])
    told = "".join(capsys.readouterr())
    assert sentence in told
    assert "Traceback" not in told
