"""The drawing of a network's layers: structure, legibility and overlap."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from synthetic_atlas import convnext_layers

from dashboard.components.drawing import PILL_HEIGHT, WIDTH, Drawing, draw


def edges(layers: list[dict[str, object]]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(str(layer["layer"]) for layer in layers))


def pills(drawing: Drawing) -> dict[str, tuple[float, float, float]]:
    return {
        element["data"]["id"]: (element["position"]["x"], element["position"]["y"], element["data"]["width"])
        for element in drawing.elements
        if element["classes"] == "layer"
    }


def test_every_layer_of_a_convnext_is_drawn_inside_its_block_and_stage() -> None:
    layers = convnext_layers(1)
    drawing = draw(layers, edges(layers))
    nodes = {
        element["data"]["id"]: element for element in drawing.elements if "source" not in element["data"]
    }
    assert len(pills(drawing)) == 58
    assert sum(node["classes"] == "stage" for node in nodes.values()) == 4
    assert sum(node["classes"] == "block" for node in nodes.values()) == 18
    block = nodes[nodes["stage2.block1.dwconv"]["data"]["parent"]]
    assert block["data"]["label"] == "block 1"
    assert nodes[block["data"]["parent"]]["data"]["label"] == "stage 2"
    assert sum("source" in element["data"] for element in drawing.elements) == 57


def test_a_drawing_of_58_layers_is_readable_without_zooming() -> None:
    layers = convnext_layers(1)
    assert draw(layers, []).height < 1300


def test_long_names_keep_their_distinguishing_part() -> None:
    names = ["attention.q_proj", "attention.k_proj", "attention.output_projection", "fc"]
    layers: list[dict[str, object]] = [
        {"layer": name, "label": f"block 1 > {name}", "stage": None, "block": "block 1"} for name in names
    ]
    shown = [node["data"]["label"] for node in draw(layers, []).elements if node["classes"] == "layer"]
    assert shown == ["q_proj", "k_proj", "output_…", "fc"]


names = st.sampled_from([None, "stage 1", "stage 2", "stem"])


@given(st.lists(st.tuples(names, names), max_size=60))
def test_layers_never_overlap_and_stay_inside_for_any_structure(
    groups: list[tuple[str | None, str | None]],
) -> None:
    layers: list[dict[str, object]] = [
        {"layer": f"l{number}", "label": f"{stage} > {block} > conv{number}", "stage": stage, "block": block}
        for number, (stage, block) in enumerate(groups)
    ]
    drawing = draw(layers, edges(layers))
    spots = list(pills(drawing).values())
    assert len(spots) == len(layers)
    ids = [element["data"]["id"] for element in drawing.elements]
    assert len(set(ids)) == len(ids)
    for x, y, width in spots:
        assert x - width / 2 >= 0
        assert x + width / 2 <= WIDTH
        assert y - PILL_HEIGHT / 2 >= 0
        assert y + PILL_HEIGHT / 2 <= drawing.height
    for (x, y, width), (other_x, other_y, other_width) in itertools.combinations(spots, 2):
        assert abs(y - other_y) >= PILL_HEIGHT or abs(x - other_x) >= (width + other_width) / 2
