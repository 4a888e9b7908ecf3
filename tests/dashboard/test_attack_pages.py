"""The Attack and Robustness pages, their routes and downloads, over attacks in a real ledger without a network."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import numpy as np
import pytest
from dash import no_update
from dash.exceptions import PreventUpdate
from flask.testing import FlaskClient
from ledger_rows import add_attack, attack_keys, picture_of
from sqlalchemy import insert
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.api.answer_types import WholeAttack
from dashboard.app import create_app
from dashboard.components.drawing import as_picture, draw
from dashboard.pages import attack, robustness
from dashboard.pages.attack_jobs import compute_maps, followup_jobs
from dashboard.pages.attack_request import FORM, MAX_INTERACTIVE, read_page
from dashboard.pages.request import filling
from dashboard.pages.request.changes import changes_of
from dashboard.pages.request.form import merged
from dashboard.state.context import Context
from db.ledger.engine import now
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.ledger.tables import PANELS, AttackLayer, AttackMap, AttackUnit, JobItem
from db.settings import read_settings
from db.stores.results import ResultStore
from workers.attacks.registry import ATTACKS
from workers.attribution.registry import METHODS
from workers.requests.attacks import attack_job
from workers.requests.models import choose_models

LAYER = "stage1.block1.dwconv"


@pytest.fixture(scope="module")
def site(site: tuple[FlaskClient, Context]) -> tuple[FlaskClient, Context]:
    fill(site[1])
    return site


def fill(context: Context) -> None:
    """Add a job of four attacks: two flipped (one with files), one resisted, one without a gradient."""
    store = ResultStore(context.settings)
    items = tuple(NewItem("synthetic", image, f"{image:064d}") for image in range(4))
    parameters = {"models": [{"name": "synthetic", "source": "s", "digest": "0" * 64}]}
    job, _ = submit_job(
        context.ledger, NewJob("k", "attack", "batch", "synthetic", "painted", parameters, items)
    )
    picture = picture_of(0)
    signs = np.where(np.arange(224 * 224 * 3).reshape(224, 224, 3) % 2, 255, 1).astype(np.uint8)
    steps = np.zeros((3, 12), np.float32)
    for point, top in enumerate([(3, 5), (3, 5), (5, 3)]):
        steps[point] = [point, 0.7 - 0.3 * point, top[0], 0.6, top[1], 0.3, 7, 0.1, -1, 0, -1, 0]
    files = {
        "file": store.write_picture("attacks", "a" * 64, picture),
        "input_file": store.write_picture("inputs", "b" * 64, picture),
        "change_file": store.write_picture("attacks", "a" * 64 + "-signs", signs),
        "steps_file": store.write_array("attacks", "a" * 64 + "-steps", steps),
    }
    with context.ledger.write() as connection:
        numbers = [
            add_attack(connection, job, image_id=0, epsilon=0.002, **files),
            add_attack(connection, job, image_id=1, epsilon=0.02),
            add_attack(connection, job, image_id=2, outcome="resisted"),
            add_attack(connection, job, image_id=3, outcome="no_gradient", class_after=None, name_after=None),
        ]
        for position, number in enumerate(numbers):
            connection.execute(
                JobItem.__table__.update()
                .where(JobItem.job == job, JobItem.position == position)
                .values(state="done", result=number, seconds=0.5)
            )
        unit = {
            "attack": numbers[0], "layer": LAYER, "activation_before": 1.0, "activation_after": 3.5, "shift": 2.5,
            "y_before": 1, "x_before": 2, "y": 3, "x": 4,
        }  # fmt: skip
        connection.execute(
            insert(AttackUnit),
            [
                unit | {"rank": 1, "channel": 1, "deviations": 4.0},
                unit | {"rank": 2, "channel": 0, "deviations": -2.0},
                unit | {"layer": "gone", "rank": 1, "channel": 9, "deviations": None},
            ],
        )
        change = {"attack": numbers[0], "mean_shift": 0.5, "mean_deviations": 1.5, "relative_change": 0.02}
        connection.execute(insert(AttackLayer).values(layer=LAYER, position=0, **change))
        heat = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
        for panel in PANELS:
            distances = {"rank_correlation": 0.9, "ssim": 0.8, "mean_difference": 0.1, "mean_standard_error": 0.05,
                         "beyond_noise": 0.2}  # fmt: skip
            connection.execute(
                insert(AttackMap).values(
                    attack=numbers[0], job=job, request="r", panel=panel, target_class=3, target_name="a fish",
                    samples=25, noise_level=0.15, seed=0, seconds=1.0, created=now(),
                    file=store.write_array("comparisons", panel, heat),
                    difference_file=None if panel == "clean" else store.write_array("comparisons", "d", heat - 0.5),
                    standard_error_file=None if panel == "clean" else store.write_array("comparisons", "e", heat / 9),
                    **dict.fromkeys(distances) if panel == "clean" else distances,
                )
            )  # fmt: skip


@pytest.fixture
def client(site: tuple[FlaskClient, Context]) -> FlaskClient:
    return site[0]


def shown(site: tuple[FlaskClient, Context], search: str) -> dict[str, Any]:
    context = site[1]
    with site[0].application.test_request_context():
        return read_page(context, context.catalogue(), search)


def test_an_address_without_anything_asks_for_the_first_images(site: tuple[FlaskClient, Context]) -> None:
    page = shown(site, "")
    assert (page["chosen"], page["image_set"], page["ids"]) == (["synthetic"], "painted", "0-2")
    assert page["request"] == {
        "models": ["synthetic"], "images": "painted", "ids": "0-2", "method": "fgsm", "kind": "attack",
        "parameters": {"mode": "smallest", "grid": "geometric", "ratio": 1.5, "parts": 8, "cap": 0.5,
                       "minimum": 0.0, "levels": "real", "scan": "first"},
        "relative_to": "prediction", "target": None, "queue": "interactive",
    }  # fmt: skip
    assert page["job"] is None
    assert [row["id"] for row in page["rows"]] == [0, 1, 2]
    assert site[0].post("/api/jobs", json=page["request"]).status_code == 201
    assert shown(site, "")["job"] is not None, "the request finds its job"


def test_large_requests_use_the_batch_queue(site: tuple[FlaskClient, Context]) -> None:
    assert shown(site, "?ids=0-11&models=synthetic&target=7")["request"]["queue"] == "interactive"
    assert shown(site, "?ids=0-11&models=synthetic&target=7")["request"]["target"] == 7
    assert MAX_INTERACTIVE == 24


def test_an_attack_alone_brings_its_request(site: tuple[FlaskClient, Context]) -> None:
    page = shown(site, "?attack=2")
    assert (page["attack"], page["ids"], page["target"]) == (2, "1", "label")
    assert page["problems"] == {}
    assert "There is no attack 99" in " ".join(shown(site, "?attack=99")["problems"].values())


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("?ids=x", "expected numbers such as 0,1,4-7"),
        ("?ids=99", "painted has images 0 to 11"),
        ("?method=cw", "method: expected one of fgsm, pgd"),
        ("?p_step=0", "step: expected a number above 0"),
        ("?p_mode=fixed&p_cap=0.2", "cap: not used where mode is fixed"),
        ("?target=cat", "target: expected a class index"),
        ("?models=nobody", "'nobody' is not indexed"),
        ("?images=nothing", "There is no image set “nothing”"),
    ],
)
def test_invalid_requests_are_refused_by_name(
    site: tuple[FlaskClient, Context], search: str, sentence: str
) -> None:
    assert sentence in " ".join(shown(site, search)["problems"].values())


def changed(site: tuple[FlaskClient, Context], search: str, **controls: str) -> str:
    """Return the address after these controls were changed by hand."""
    page, context = shown(site, search), site[1]
    with site[0].application.test_request_context():
        filled = filling.fill(FORM, context, page, search)["filled"]
    changes, _ = changes_of(FORM, context, controls, filled, search)
    return merged(search, changes)


def offered(site: tuple[FlaskClient, Context], search: str) -> set[str]:
    """Return the parameters that have a control."""
    with site[0].application.test_request_context():
        filled = filling.fill(FORM, site[1], shown(site, search), search)["filled"]
    return {name[2:] for name in filled if name.startswith("p_")}


def test_only_parameters_that_the_request_reads_have_a_control(site: tuple[FlaskClient, Context]) -> None:
    assert offered(site, "?p_mode=fixed") == {"mode", "epsilon", "levels"}
    smallest = {"mode", "grid", "cap", "minimum", "levels", "scan"}
    assert offered(site, "") == smallest | {"ratio", "parts"}
    assert offered(site, "?p_grid=linear") == smallest | {"step"}
    assert offered(site, "?p_step=0.01") == smallest | {"step"}
    assert offered(site, "?p_levels=8-bit") == smallest - {"grid"} | {"step"}


def test_a_choice_drops_the_parameters_that_it_makes_meaningless(site: tuple[FlaskClient, Context]) -> None:
    here = "?ids=0&p_step=0.01"
    assert changed(site, here, p_cap="0.1") == f"{here}&p_cap=0.1", "a step alone asks for the linear grid"
    assert changed(site, here, p_grid="geometric") == "?ids=0"
    assert changed(site, f"{here}&p_cap=0.1", p_mode="fixed") == "?ids=0&p_mode=fixed"
    assert changed(site, "?ids=0&p_ratio=2", p_levels="8-bit") == "?ids=0&p_levels=8-bit"
    assert changed(site, f"{here}&attack=7", target="label") == f"{here}&target=label"


def test_another_method_keeps_the_parameters_that_both_have(site: tuple[FlaskClient, Context]) -> None:
    assert changed(site, "?ids=0&p_cap=0.1", method="pgd") == "?ids=0&p_cap=0.1&method=pgd"
    there = "?ids=0&method=pgd&p_steps=3&p_cap=0.1"
    assert changed(site, there, method="fgsm") == "?ids=0&p_cap=0.1"


def test_a_change_to_the_request_of_an_attack_keeps_the_rest_of_it(site: tuple[FlaskClient, Context]) -> None:
    before = shown(site, "?attack=2")["request"]
    after = shown(site, changed(site, "?attack=2", p_cap="0.25"))
    assert after["problems"] == {}
    assert after["attack"] == 0
    assert after["request"] == before | {"parameters": before["parameters"] | {"cap": 0.25}}


def test_the_drawing_has_every_layer_once_in_its_place(site: tuple[FlaskClient, Context]) -> None:
    catalogue = site[1].catalogue()
    drawing = draw(catalogue.layers["synthetic"], catalogue.edges["synthetic"])
    picture = as_picture(drawing)
    pills = [node for node in picture["nodes"] if "width" in node]
    assert [node["id"] for node in pills] == [row["layer"] for row in catalogue.layers["synthetic"]]
    assert all(picture["left"] <= node["x"] - node["width"] / 2 for node in pills)
    assert all(node["x"] + node["width"] / 2 <= picture["width"] for node in pills)
    assert [node["label"] for node in picture["nodes"] if node.get("head")] == [
        f"stage {n}" for n in range(1, 5)
    ]
    names = {node["id"] for node in pills}
    assert all(edge["source"] in names and edge["target"] in names for edge in picture["edges"])


def panels(site: tuple[FlaskClient, Context], search: str) -> tuple[list[Any], Any, Any, Any, Any]:
    """Return the cards, the selected attack, and the panels of it: step, channels, maps with follow-ups."""
    with site[0].application.test_request_context():
        page = attack.show(search, None, None, None, "/attack", None, None)
        cards, selected = page["list"], page["selected"]
        step, channels, _, _ = attack.show_attack(selected)
        return cards, selected, step, channels, attack.show_followups(selected, None, None, None)


def test_the_selected_attack_is_shown_with_its_channels_and_maps(site: tuple[FlaskClient, Context]) -> None:
    cards, selected, step, channels, (maps, followups, keys) = panels(site, "?attack=1&at=0.001")
    assert cards == [], "a card would repeat the verdict"
    assert selected["attack"] == 1
    assert "ids=0" in selected["search"], "links of the panel lead to the whole request"
    text = str(step)
    assert "a fish becomes a bird at ε 0.002 (0.51/255)" in text
    assert text.count("className='success'") == 1
    values = next(part.data for part in step.children if getattr(part, "id", "") == "attack-values")
    assert [(one["epsilon"], one["changed"], one["place"]) for one in values["steps"]] == [
        (0.0, False, 0), (0.001, False, 50), (0.002, True, 100)
    ]  # fmt: skip
    assert values["steps"][2]["change"] == ["ε 0.002 (0.51/255)", "drawn × 250"]
    assert [one["words"] for one in values["steps"][0]["top"]] == ["60.0 %", "30.0 %", "10.0 %"]
    assert step_panel_slider(step).value == 1, "the epsilon of the address"
    assert "4.0 SD" in str(channels)
    assert str(channels).count("className='mover'") == 3
    assert "changed by 2.0 % of its norm" in str(channels)
    assert "Compute" in str(maps)
    figures = [
        (part.to_plotly_json()["props"], part.children[1].to_plotly_json()["props"])
        for part in maps._traverse()
        if type(part).__name__ == "Figure"
    ]
    ends = {
        ("data-signed" in canvas, round(json.loads(figure["data-display"])["high"], 4))
        for figure, canvas in figures
    }
    # the 99.5th percentiles of 0 to 1 and of |-0.5 to 0.5|; standard errors have the scale of the differences
    assert ends == {(False, 0.995), (True, 0.4975), (False, 0.4975)}
    assert "1 − rank correlation with the clean map is 0.100: 1.0 times" in str(maps)
    assert "Clamp the 10 channels that shifted most and rerun" in str(followups)
    with site[0].application.test_request_context():
        assert attack.show_followups(selected, None, None, keys) == (no_update,) * 3, "nothing is new"


def step_panel_slider(step: Any) -> Any:
    return next(part for part in step._traverse() if getattr(part, "type", "") == "range")


def test_an_attack_without_a_change_has_neither_maps_nor_channels(site: tuple[FlaskClient, Context]) -> None:
    _, _, step, channels, (maps, followups, _) = panels(site, "?attack=4")
    assert "No perturbation possible" in str(step)
    assert "no channel shifted" in str(channels)
    assert "there is no adversarial map" in str(maps)
    assert followups == []


def test_cards_show_each_outcome_and_link_to_it(site: tuple[FlaskClient, Context]) -> None:
    cards, selected, *_ = panels(site, "?images=painted&ids=8-11&p_cap=0.25&at=0.1")
    assert selected is not None
    assert len(cards) == 4
    assert all("at=0.1" not in str(card) for card in cards), "each attack has its own epsilons"


def test_an_attack_is_returned_completely(client: FlaskClient) -> None:
    told: Any = client.get("/api/attacks/1").json
    msgspec.convert(told, WholeAttack)
    assert told.keys() == WholeAttack.__annotations__.keys()
    assert (told["outcome"], told["epsilon"], told["name_after"]) == ("flipped", 0.002, "a bird")
    assert not {"file", "input_file", "key", "steps_file"} & told.keys()
    assert [step["epsilon"] for step in told["steps"]] == [0.0, 0.001, 0.002]
    assert [one["class_index"] for one in told["steps"][2]["top"]] == [5, 3, 7]
    assert told["steps"][1]["reference_probability"] == pytest.approx(0.4)
    first, second, gone = sorted(told["units"], key=lambda unit: (unit["layer"] == "gone", unit["rank"]))
    assert (first["channel"], first["label"], first["deviations"]) == (1, "stage 1 > block 1 > dwconv", 4.0)
    assert client.get(first["patches"]["picture"]).mimetype == "image/jpeg"
    assert second["channel"] == 0
    assert gone["patches"] is None
    assert told["layers"][0]["relative_change"] == 0.02
    assert [found["panel"] for found in told["maps"]] == list(PANELS)
    for name in ("png", "input_png", "signs_png"):
        answer = client.get(told[name])
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        assert "immutable" in answer.headers["Cache-Control"]
    attacked = told["maps"][1]
    for name in ("npy", "difference_npy", "standard_error_npy"):
        values = np.load(io.BytesIO(client.get(attacked[name]).data))
        assert values.shape == (224, 224)
    assert np.load(io.BytesIO(client.get(attacked["difference_npy"]).data)).min() == -0.5


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/api/attacks/99", 404, "there is no attack 99"),
        ("/api/attacks/99999999999", 404, "there is no attack"),
        ("/api/attacks/4.png", 404, "attack 4 (fgsm, no gradient) has no attack-4.png"),
        ("/api/attacks/1/change.npy", 404, "has no attack-1-change.npy"),
        ("/api/attacks/2/input.png", 410, "is gone: compute it again"),
        ("/api/attack-maps/99.npy", 404, "there is no map 99"),
        ("/api/attack-maps/1.npy?part=difference", 404, "map 1 is the clean one: it has no difference"),
        ("/api/attack-maps/1.npy?part=all", 400, "part: expected one of map, difference, standard_error"),
        ("/download/attacks.csv?job=99", 404, "there is no job 99"),
        ("/download/attacks.csv?job=0", 400, "job: expected a whole number from 1"),
        ("/download/attacks.csv?images=painted&ids=7", 404, "these attacks were not asked for yet"),
        ("/download/attacks.csv?images=painted&ids=99", 400, "painted has images 0 to 11"),
        ("/download/attacks.csv?attack=99", 400, "There is no attack 99"),
        ("/download/attack-steps.csv?attack=99", 404, "there is no attack 99"),
        ("/download/attack-steps.csv?attack=2", 410, "the steps of attack 2 are gone"),
        ("/download/robustness/everything.csv", 404, "table: expected one of curve, strip"),
        ("/download/robustness/curve.csv?axis=cubic", 400, "axis: expected one of log, linear"),
    ],
)
def test_missing_results_give_one_sentence(
    client: FlaskClient, address: str, status: int, sentence: str
) -> None:
    answer = client.get(address)
    assert (answer.status_code, sentence in answer.json["error"]) == (status, True), answer.json  # type: ignore[index]


def test_a_jobs_attacks_are_listed_and_its_maps_are_not_those_of_another_kind(client: FlaskClient) -> None:
    told: Any = client.get("/api/jobs/1").json
    assert [found["outcome"] for found in told["attacks"]] == [
        "flipped",
        "flipped",
        "resisted",
        "no_gradient",
    ]
    assert told["maps"] == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"kind": "attack", "models": ["synthetic"], "images": "painted", "ids": [0], "relative_to": "fear"},
         "relative_to: expected one of prediction, label, got 'fear'"),
        ({"kind": "attack", "models": ["synthetic"], "images": "painted", "ids": [0], "target": "cat"},
         "target: expected a class index, got 'cat'"),
        ({"kind": "comparison", "attacks": [99]}, "there is no attack 99"),
        ({"kind": "comparison", "attacks": "4"}, "attack 4 did not change the image"),
        ({"kind": "comparison", "attacks": "1-x"}, "attacks: expected numbers such as 0,1,4-7, got '1-x'"),
        ({"kind": "transfer", "attacks": [1], "judges": ["nobody"]}, "'nobody' is not indexed"),
        ({"kind": "transfer", "attacks": [1], "judges": "synthetic"}, "judges: expected a list of names"),
        ({"kind": "ablation", "attacks": [1], "channels": 0}, "channels: expected a whole number from 1 to 100"),
        ({"kind": "ablation", "attacks": [1], "layer": "a b"}, "layer: expected a layer such as"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(client: FlaskClient, body: dict[str, Any], sentence: str) -> None:
    answer = client.post("/api/jobs", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json["error"]  # type: ignore[index]


def test_follow_up_jobs_link_to_their_attack(client: FlaskClient) -> None:
    for body in ({"kind": "comparison", "attacks": [1]}, {"kind": "ablation", "attacks": "1", "draws": 2}):
        answer: Any = client.post("/api/jobs", json=body)
        assert answer.status_code == 201
        assert answer.json["page"] == "/attack?attack=1"
        assert answer.json["models"] == ["synthetic"]
        assert client.post("/api/jobs", json=body).status_code == 200


def test_maps_are_requested_with_the_parameters_in_the_fields(site: tuple[FlaskClient, Context]) -> None:
    context, selected = site[1], {"attack": 2, "search": ""}
    with site[0].application.test_request_context():
        with pytest.raises(PreventUpdate):
            compute_maps(None, selected, "", {})  # the button has just appeared
        fields = {"samples": "4", "noise_level": "0.15", "seed": "many"}
        asked = compute_maps(1, selected, "", fields)
        assert asked["event"]["sentence"] == "seed: expected a whole number from 0 to 2.14748e+09, got 'many'"
        assert asked["asked"] is no_update
        assert followup_jobs(context, "painted", 2) == []
        asked = compute_maps(1, selected, "", fields | {"seed": " 7"})
        assert asked["asked"] == "4 0.15 7"
        (job,) = followup_jobs(context, "painted", 2)
        assert job["parameters"]["parameters"] == {"samples": 4, "noise_level": 0.15, "seed": 7}
        page = attack.show("?attack=2", None, None, asked["event"], "/attack", None, None)
    assert page["news"] == [[job["job"], "queued", 0, 0]]
    assert "0 of 1 comparisons" in str(page["jobs"]["lines"])
    assert page["jobs"]["disabled"] is False, "the page looks again"


def table(client: FlaskClient, address: str) -> list[dict[str, str]]:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_downloads_have_every_attack_and_every_step(client: FlaskClient) -> None:
    rows = table(client, "/download/attacks.csv?job=1")
    assert [row["outcome"] for row in rows] == ["flipped", "flipped", "resisted", "no_gradient"]
    assert rows[0]["parameter_mode"] == "smallest"
    assert (rows[2]["epsilon"], rows[2]["attacked_epsilon"]) == ("", "0.5")
    steps = table(client, "/download/attack-steps.csv?attack=1")
    assert [float(step["epsilon"]) for step in steps] == [0.0, 0.001, 0.002]
    assert float(steps[1]["levels"]) == pytest.approx(0.255)
    assert steps[2]["class_index_1"] == "5"


def test_the_csv_contains_the_shown_attacks_of_any_job(site: tuple[FlaskClient, Context]) -> None:
    """Images 8 to 10 were attacked by one job; the URLs have no job of their own at first, then a cancelled one."""
    client, context = site
    models = choose_models(context.atlas, ["synthetic"])
    new = attack_job(
        context.atlas, models=models, image_set="painted", image_ids=[8, 9, 10], method="fgsm", parameters={"cap": 0.25}
    )  # fmt: skip
    made, _ = submit_job(context.ledger, new)
    with context.ledger.write() as connection:
        numbers = {
            image: add_attack(
                connection, made, image_id=image, relative_to="prediction", key=key,
                image_key=next(item.image_key for item in new.items if item.image_id == image),
                **({"outcome": "resisted", "cap": 0.25} if image == 9 else {"epsilon": image / 1000}),
            )
            for (_, image), key in attack_keys(context.atlas, new).items()
        }  # fmt: skip
    there = "model=synthetic&images=painted&p_cap=0.25&ids=10,6,9"
    page = shown(site, f"?{there}")
    assert page["job"] is None
    assert [found["attack"] for found in page["stored"]] == [numbers[10], numbers[9]]
    assert "position" not in page["stored"][0]
    expected = [("10", "done", "flipped", "0.01"), ("6", "queued", "", ""), ("9", "done", "resisted", "")]

    def told() -> list[tuple[str, ...]]:
        rows = table(client, f"/download/attacks.csv?{there}")
        return [tuple(row[name] for name in ("image_id", "state", "outcome", "epsilon")) for row in rows]

    assert told() == expected
    name = client.get(f"/download/attacks.csv?{there}").headers["Content-Disposition"]
    assert name == 'attachment; filename="attacks-painted-fgsm.csv"'
    assert client.get(f"/download/attacks.csv?{there}&p_cap=0.125").status_code == 404
    job = client.post("/api/jobs", json=page["request"]).json["job"]  # type: ignore[index]
    assert client.delete(f"/api/jobs/{job}").status_code == 200
    assert told() == expected


WAY = "FGSM, leaves the label, step 0.001 to 0.5"


def robust(site: tuple[FlaskClient, Context], search: str) -> tuple[str, bool]:
    with site[0].application.test_request_context():
        content, still = robustness.show_robustness(search, None, None, None, "/robustness")
    return str(content), still


def test_a_set_is_summarized_with_its_sql(site: tuple[FlaskClient, Context]) -> None:
    told, _ = robust(site, "?images=painted")
    for words in ("Robust accuracy", "Smallest epsilon of each image", "Leaderboard", "Transfer",
                  "FROM leaderboard", "FROM class_flips", "FROM attacked",
                  "Images without a gradient were not perturbed"):  # fmt: skip
        assert words in told, words
    assert "/attack?attack=2" in robust(site, "?images=painted&epsilon=0.02")[0]
    cap = robust(site, "?images=painted&epsilon=0.5")[0]
    assert "Resist up to ε 0.5 (127.5/255): 1 image of synthetic" in cap
    assert "Changed at" not in cap
    assert "was not attacked by “carefully”" in robust(site, "?images=painted&protocol=carefully")[0]


SHOWN = {"protocol": WAY, "label": "", "axis": "log"}


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ((WAY, "n01", "log"), f"?model=m&images=painted&{urlencode({'protocol': WAY})}&label=n01"),
        ((WAY, "all", "linear"), f"?model=m&images=painted&{urlencode({'protocol': WAY})}&axis=linear"),
        (("another", "all", "log"), "?model=m&images=painted&protocol=another"),
    ],
)
def test_a_control_changes_its_part_of_the_address_and_closes_the_list(
    values: tuple[str, str, str], address: str
) -> None:
    search = f"?model=m&images=painted&{urlencode({'protocol': WAY})}&epsilon=0.1&listed=other"
    assert robustness.choose(*values, SHOWN, search) == address


def test_controls_that_show_the_address_change_nothing() -> None:
    for chosen in (SHOWN, None):  # None: the page is not there yet
        with pytest.raises(PreventUpdate):
            robustness.choose(WAY, "all", "log", chosen, "")
    with pytest.raises(PreventUpdate):
        robustness.list_images(None, "")
    with pytest.raises(PreventUpdate):
        robustness.open_attack({"points": [{"customdata": None}]})  # an empty cell of the matrix


def test_another_class_is_dropped_with_its_protocol() -> None:
    shown = SHOWN | {"label": "n01"}
    assert robustness.choose("another", "n01", "log", shown, "?label=n01") == "?protocol=another"


def test_points_lead_to_their_images(site: tuple[FlaskClient, Context]) -> None:
    with site[0].application.test_request_context():
        point = {"points": [{"customdata": ["synthetic", 0.02]}]}
        assert robustness.list_images(point, "?model=m&axis=linear") == (
            "?model=m&axis=linear&listed=synthetic&epsilon=0.02",
            None,
        )
        assert robustness.open_attack({"points": [{"customdata": [2]}]}) == "/attack?attack=2"
        assert robustness.open_attack({"points": [{"customdata": 3}]}) == "/attack?attack=3"


def test_a_refused_transfer_says_why_and_a_submitted_one_is_shown(site: tuple[FlaskClient, Context]) -> None:
    with site[0].application.test_request_context():
        problem, disabled, _ = robustness.submit_transfer(1, "1-2", "nobody", 4)
        assert "'nobody' is not indexed" in str(problem)
        assert not disabled
        with pytest.raises(PreventUpdate):
            robustness.submit_transfer(None, "1-2", "nobody", 4)  # the button has just appeared


def test_each_table_of_a_set_can_be_taken_away(client: FlaskClient) -> None:
    query = f"?images=painted&model=synthetic&protocol={WAY}"
    curve = table(client, f"/download/robustness/curve.csv{query}")
    assert [float(row["share"]) for row in curve] == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])
    assert len(table(client, f"/download/robustness/strip.csv{query}")) == 3
    assert table(client, f"/download/robustness/leaderboard.csv{query}")[0]["images"] == "4"
    assert table(client, f"/download/robustness/outcomes.csv{query}")[0] == {
        "model": "synthetic", "measure": "robust accuracy", "images": "4", "wrong_before": "0", "changed": "2",
        "resisted": "1", "no_gradient": "1",
    }  # fmt: skip
    assert table(client, f"/download/robustness/transfer.csv{query}") == []
    assert len(table(client, f"/download/robustness/flips.csv{query}")) == 1
    assert table(client, f"/download/robustness/classes.csv{query}")


def test_a_set_without_attacks_shows_the_next_step(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path)})
    import_pictures(settings, painted_pictures(3), image_set="painted")
    app = create_app(settings)
    with app.server.test_request_context():
        told, _ = robustness.show_robustness("", None, None, None, "/robustness")
        assert "No model was indexed yet" in str(told)
    add_run(settings, image_set="painted")
    with app.server.test_request_context():
        told, still = robustness.show_robustness("?model=synthetic", None, None, None, "/robustness")
    assert "painted was not attacked yet" in str(told)
    assert "convscope attack --model synthetic --images painted" in str(told)
    assert still
    answer = app.server.test_client().get("/download/robustness/curve.csv?images=painted")
    assert answer.text.startswith("model,epsilon")


def test_forms_call_parameters_by_plain_words() -> None:
    """No label is a name that only the code explains; each choice has a label."""
    for method in (*ATTACKS.values(), *METHODS.values()):
        for parameter in method.parameters:
            assert not parameter.words or len(parameter.words) == len(parameter.choices), parameter.name
            assert parameter.label or parameter.name not in CODE_WORDS, (method.name, parameter.name)
        labels = [parameter.label or parameter.name for parameter in method.parameters]
        assert len(set(labels)) == len(labels), method.name


CODE_WORDS = ("mode", "grid", "ratio", "parts", "step", "cap", "minimum", "levels", "colours", "dtype")
