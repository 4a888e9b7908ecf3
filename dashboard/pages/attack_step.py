"""The selected attack: its verdict, original + perturbation = attacked, and confidence against epsilon.

The images at the slider's epsilon are composed in the browser (`browser/step.js`), from the values of `data`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash_bootstrap_components as dbc
from dash import dcc, html

from dashboard.components.attack_words import succeeds, verdict
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import (
    activation,
    epsilon_words,
    named_class,
    probability,
    short_epsilon,
)
from dashboard.components.line_art import line_art
from dashboard.security.prefix import local
from dashboard.state.address import AttackAddress, ImageAddress, SaliencyAddress
from dashboard.state.ids import make_id

Record = Mapping[str, Any]
EPSILON = make_id("attack", "epsilon")
STEP_VALUES = make_id("attack", "values")
PAINTED = make_id("attack", "painted")  # what the browser last showed: attack and step


def step_panel(attack: Record, search: str) -> Component:
    """The panel of an attack with its `steps` (`attack_answers.whole_attack`); `search` is the page's query string."""
    steps = attack["steps"] or []
    parts = [_verdict(attack, search), _equation(attack)]
    if attack["png"]:
        at = shown_step(attack, steps, search)
        parts += [
            html.Div(
                [
                    html.Div(_curve(attack, steps, at, search), className="curve-card card-plain"),
                    html.Div(
                        [html.H2("Top-5 classes"), html.Div(className="bars top-five")],
                        className="card-plain",
                    ),
                ],
                className="two",
            ),
            _downloads(attack),
            dcc.Store(id=STEP_VALUES, data=step_values(attack, steps)),
            dcc.Store(id=PAINTED),
        ]
    return html.Section(
        parts,
        className="attack-step",
        **attributes(aria_label="Attack", data_attack=str(attack["attack"])),
    )


def shown_step(attack: Record, steps: Sequence[Record], search: str) -> int:
    """The step that is shown first: the one at the epsilon in the address, else the attacked image's."""
    wanted = dict(parse_qsl(search.lstrip("?"))).get("at", "")
    try:
        epsilons = [float(wanted), attack["attacked_epsilon"]]
    except ValueError:
        epsilons = [attack["attacked_epsilon"]]
    for epsilon in epsilons:
        for place, step in enumerate(steps):
            if abs(step["epsilon"] - epsilon) < 1e-9:
                return place
    return 0


def step_values(attack: Record, steps: Sequence[Record]) -> dict[str, Any]:
    """What the browser needs to show each step: images, and for each epsilon its words, lengths and factors.

    PGD's perturbation is known at the attacked epsilon only, so `reached` is that one for all steps but 0.
    """
    signs = attack["signs_png"]
    last = steps[-1]["epsilon"] if steps else 0.0
    attacked = {
        "epsilon": attack["attacked_epsilon"],
        "top": [
            {
                "class_index": attack["class_after"],
                "name": attack["name_after"],
                "probability": attack["probability_after"],
            }
        ],
    }
    values = []
    for step in steps or [attacked]:
        epsilon = step["epsilon"]
        reached = epsilon if signs or epsilon == 0 else attack["attacked_epsilon"]
        factor = 0.5 / reached if reached else 1.0
        same = abs(epsilon - reached) < 1e-9
        values.append(
            {
                "epsilon": epsilon,
                "words": f"ε {epsilon_words(epsilon)}",
                "place": 100 * epsilon / last if last else 0,
                "changed": bool(steps) and succeeds(attack, step),
                "top": [
                    {
                        "name": named_class(found["name"], found["class_index"]),
                        "share": found["probability"],
                        "words": probability(found["probability"]),
                        "marked": found["class_index"] == attack["class_index"],
                    }
                    for found in step["top"]
                ],
                "reached": reached,
                "factor": factor,
                "change": [
                    f"{'' if same else 'shown at '}ε {epsilon_words(reached)}",
                    f"drawn × {activation(factor)}" if reached else "none",
                ],
            }
        )
    return {
        "attack": attack["attack"],
        "before": attack["input_png"],
        "signs": signs,
        "change": attack["change_npy"],
        "eight_bit": attack["eight_bit"],
        "steps": values,
        "known": bool(steps),
    }


def _verdict(attack: Record, search: str) -> Component:
    found = verdict(attack)
    image = {"model": attack["model"], "images": attack["image_set"]}
    number = attack["image_id"]
    return html.Div(
        [
            html.Div(icon(found.symbol), className="message-icon"),
            html.Div(
                [
                    html.H2(found.title),
                    *(html.P(line) for line in found.lines),
                    _png(attack, search),
                    html.P(
                        [
                            html.A(f"image {number}", href=ImageAddress(**image, id=number).href()),
                            html.A(
                                "saliency of this image",
                                href=SaliencyAddress(**image, ids=str(number)).href(),
                            ),
                            html.Span(
                                f"{attack['model']} · attack {attack['attack']} · gradient norm "
                                f"{activation(attack['gradient_norm'])}",
                                className="quiet",
                            ),
                        ],
                        className="links",
                    ),
                ]
            ),
        ],
        className=f"attack-verdict {found.kind}",
        role="status",
    )


def _png(attack: Record, search: str) -> Component:
    """Whether the attack survives being saved as a PNG."""
    if attack["png_class"] is None or attack["epsilon"] == 0:
        return None
    found = (
        f"{named_class(attack['png_name'], attack['png_class'])}, {probability(attack['png_probability'])}"
    )
    saved = f" Saved as an 8-bit PNG and read again: {found}. "
    if attack["png_succeeds"]:
        return html.P([icon("check2"), f"{saved}It still succeeds."])
    if attack["outcome"] != "flipped":
        return None
    again = _search(search, ids=attack["image_id"], p_levels="8-bit")
    return html.P(
        [
            icon("exclamation-triangle"),
            f"{saved}The change does not survive rounding to n/255. ",
            html.A("Attack on 8-bit levels instead", href=local(AttackAddress.path) + again),
        ]
    )


def _search(search: str, **changes: Any) -> str:
    """The query string with other choices, and without the selected attack and its epsilon."""
    given = dict(parse_qsl(search.lstrip("?"), keep_blank_values=True)) | changes
    return "?" + urlencode({name: value for name, value in given.items() if name not in ("attack", "at")})


def _equation(attack: Record) -> Component:
    before = named_class(attack["name_before"], attack["class_before"])
    caption = html.Figcaption(
        [html.B(before), html.Span(probability(attack["probability_before"]), className="num")]
    )
    if not attack["png"]:
        picture = html.Img(src=attack["input_png"], alt=f"Image {attack['image_id']} as the model sees it")
        return html.Div(html.Figure([html.H3("Original"), picture, caption]), className="equation")

    def figure(title: str, name: str, words: str, below: Component) -> Component:
        canvas = html.Canvas(
            width=224, height=224, role="img", **attributes(aria_label=words, data_part=name)
        )
        return html.Figure([html.H3(title), canvas, below])

    return html.Div(
        [
            figure("Original", "before", "the image as the model sees it", caption),
            html.Div("+", className="operator", **attributes(aria_hidden="true")),
            figure("Perturbation", "change", "the perturbation", html.Figcaption()),
            html.Div("=", className="operator", **attributes(aria_hidden="true")),
            figure("Attacked", "after", "the attacked image", html.Figcaption()),
            html.Div(className="attack-trouble", role="alert"),
        ],
        className="equation",
    )


def _curve(attack: Record, steps: Sequence[Record], at: int, search: str) -> list[Component]:
    absent = (
        "Only one epsilon was tested."
        if attack["steps"]
        else "The file with the steps is gone. Run the attack again."
    )
    return [
        html.Div([html.H2("Confidence against epsilon"), html.Output(className="num")], className="bar-line"),
        _plot(attack, steps) if len(steps) > 1 else html.P(absent, className="quiet"),
        html.Label("Epsilon", htmlFor=EPSILON, className="visually-hidden"),
        dbc.Input(
            id=EPSILON,
            type="range",
            min=0,
            max=max(0, len(steps) - 1),
            step=1,
            value=at,
            className="form-range",
        ),
        _further(attack, steps, search),
    ]


def _plot(attack: Record, steps: Sequence[Record]) -> Component:
    """Two lines: the class to leave or to reach, and the top-1 class; ranges of successes are shaded."""
    last = steps[-1]["epsilon"]
    places = [100 * step["epsilon"] / last for step in steps]
    middles = [0.0, *((left + right) / 2 for left, right in itertools.pairwise(places)), 100.0]
    shades = [
        html.Div(
            className="success",
            style={"left": f"{middles[i]:.4g}%", "width": f"{max(0.4, middles[i + 1] - middles[i]):.4g}%"},
        )
        for i, step in enumerate(steps)
        if succeeds(attack, step)
    ]

    def line(shares: Sequence[float], **look: Any) -> Component:
        points = [(place, 100 - 100 * share) for place, share in zip(places, shares, strict=True)]
        return line_art([points], size=(100, 100), stretch=True, **look)

    target = attack["relative_to"] == "target"
    name = named_class(attack["class_name"], attack["class_index"])
    words = (
        f"Confidence in {name}, the class to be {'reached' if target else 'left'}, from epsilon 0 to "
        f"{short_epsilon(last)}"
    )
    return html.Div(
        [
            html.Div(
                [html.Span(text) for text in ("100 %", "50 %", "0 %")],
                className="plot-y num",
                **attributes(aria_hidden="true"),
            ),
            html.Div(
                [
                    html.Div(className="rule"),
                    *shades,
                    line(
                        [step["top"][0]["probability"] for step in steps],
                        className="top-class",
                        width=1.5,
                        dashes="4 3",
                    ),
                    line([step["reference_probability"] for step in steps], className="reference", width=2),
                    html.Div(className="marker"),
                ],
                className="plot-area",
                role="img",
                **attributes(aria_label=words),
            ),
            html.Div(
                [html.Span("0"), html.Span("epsilon"), html.Span(epsilon_words(last))], className="plot-x num"
            ),
            html.Div(
                [
                    html.Span(name, className="key reference"),
                    html.Span("top-1 class", className="key top-class"),
                    html.Span("reached" if target else "changed", className="key success"),
                ],
                className="keys",
            ),
        ],
        className="plot",
    )


def _further(attack: Record, steps: Sequence[Record], search: str) -> Component:
    """A search stops at the first success: a link to the request that continues beyond it."""
    if attack["full_scan"] or attack["outcome"] != "flipped" or len(steps) < 2 or attack["grid"] == "fixed":
        return None
    many = 4 if attack["grid"] == "geometric" else 100
    cap = min(attack["cap"], max(many * attack["step"], 4 * attack["epsilon"]))
    there = _search(search, ids=attack["image_id"], p_scan="full", p_cap=cap)
    return html.P(
        [
            "The search stopped at the first success. ",
            html.A("Scan further", href=local(AttackAddress.path) + there),
        ],
        className="quiet",
    )


def _downloads(attack: Record) -> Component:
    def link(href: str, words: str, symbol: str = "download", **more: Any) -> Component:
        return html.A([icon(symbol), words], href=href, className="btn btn-sm btn-quiet", **more)

    change = (
        (attack["signs_png"], "Signs, PNG") if attack["signs_png"] else (attack["change_npy"], "Change, NPY")
    )
    curve = local(f"/download/attack-steps.csv?attack={attack['attack']}")
    files = [
        (attack["png"], "Attacked, PNG"),
        (attack["input_png"], "Original, PNG"),
        change,
        (curve, "Curve, CSV"),
    ]
    return html.Div(
        [
            *(link(href, words, download="") for href, words in files),
            link(attack["url"], "JSON", "braces", target="_blank"),
        ],
        className="tools attack-downloads",
    )
