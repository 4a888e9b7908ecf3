"""Attacks as the API returns them, without server paths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboard.api.answer_types import (
    Ablation,
    Attack,
    AttackMap,
    Comparison,
    LayerShift,
    Step,
    Transfer,
    Unit,
    UnitPatches,
    WholeAttack,
    members_of,
)
from dashboard.pictures.routes import row_address
from dashboard.security.prefix import local
from dashboard.state.context import Catalogue, Context, Record
from db.queries import attacks as attack_queries
from db.queries.inventory import classes_of
from db.stores.results import ResultGone
from workers.requests.epsilons import GeometricGrid, grid_of

# Number of patches shown next to a shifted channel.
PATCHES = 9
PATCH_TILE = 96


def attack_record(found: Mapping[str, Any]) -> Attack:
    """Summary of an attack."""
    url = local(f"/api/attacks/{found['attack']}")
    change = found["change_file"]
    return members_of(
        Attack,
        found,
        {
            "url": url,
            "png": None if found["file"] is None else f"{url}.png",
            "input_png": f"{url}/input.png",
            "signs_png": f"{url}/signs.png" if change and change.endswith(".png") else None,
            "change_npy": f"{url}/change.npy" if change and change.endswith(".npy") else None,
        },
    )


def whole_attack(context: Context, found: Record) -> WholeAttack:
    """An attack with the model's output at each epsilon and all follow-up results."""
    number = found["attack"]
    ledger = context.ledger
    catalogue = context.catalogue()
    layers = {row["layer"]: row for row in catalogue.layers.get(found["model"], ())}
    comparisons = [comparison_record(maps) for maps in attack_queries.attack_maps(ledger, number)]
    return {
        **attack_record(found),
        "steps": steps(context, found),
        "layers": [
            members_of(LayerShift, {"label": _label(layers, row["layer"])}, row)
            for row in attack_queries.attack_layers(ledger, number)
        ],
        "units": unit_records(catalogue, found, attack_queries.attack_units(ledger, number), layers),
        "maps": comparisons[0]["maps"] if comparisons else [],
        "comparisons": comparisons,
        "transfers": [members_of(Transfer, row) for row in attack_queries.attack_transfers(ledger, number)],
        "ablations": [members_of(Ablation, row) for row in attack_queries.attack_ablations(ledger, number)],
    }


def _label(layers: Mapping[str, Record], layer: str) -> str:
    """How pages name a layer; its own name if it was not indexed."""
    return str(layers[layer]["label"]) if layer in layers else layer


def steps(context: Context, found: Record) -> list[Step] | None:
    """The model's output at each epsilon; None if the file is gone. See `workers.jobs.attack.steps_array`."""
    try:
        table = context.results.read_array(found["steps_file"])
    except ResultGone:
        return None
    names = class_names(context, found["model"])
    return [
        {
            "epsilon": epsilon_of(found, float(line[0])),
            "reference_probability": float(line[1]),
            "top": [
                {
                    "class_index": int(index),
                    "name": names[int(index)] if index < len(names) else None,
                    "probability": float(p),
                }
                for index, p in zip(line[2::2], line[3::2], strict=True)
                if index >= 0
            ],
        }
        for line in np.asarray(table, dtype=np.float64)
    ]


def epsilon_of(found: Mapping[str, Any], number: float) -> float:
    """The epsilon of a row of an attack's steps, from its index on the attack's grid."""
    if found["grid"] == "geometric":
        grid = grid_of(found["parameters"])
        assert isinstance(grid, GeometricGrid)
        return grid.at(number)
    epsilon: float = round(number) * found["step"]
    return round(epsilon * 255) / 255 if found["eight_bit"] else epsilon


def class_names(context: Context, model: str) -> Sequence[str | None]:
    """Class names of a model in index order; empty if the model is not indexed."""
    return [row["name"] for row in context.atlas.fetch(classes_of(model))]


def unit_records(
    catalogue: Catalogue, found: Mapping[str, Any], units: Sequence[Record], layers: Mapping[str, Record]
) -> list[Unit]:
    """Shifted channels, with their patches if the model was indexed over the set."""
    run = catalogue.run(found["model"], found["image_set"])
    indexed = {} if run is None else catalogue.dead.get(run["run"], {})
    records = []
    for unit in units:
        layer, channel = unit["layer"], unit["channel"]
        there = run is not None and layer in indexed and layer in layers
        patches: UnitPatches | None = None
        if there:
            assert run is not None
            k = min(PATCHES, run["k"])
            patches = {
                "picture": row_address(run, layer, channel, k=k, crop="effective", tile=PATCH_TILE),
                "k": k,
            }
        records.append(members_of(Unit, unit, {"label": _label(layers, layer), "patches": patches}))
    return records


def comparison_record(maps: Sequence[Record]) -> Comparison:
    """The saliency maps of one request, with its parameters."""
    clean = next(row for row in maps if row["panel"] == "clean")
    return members_of(Comparison, clean, {"maps": [map_record(row) for row in maps]})


def map_record(found: Mapping[str, Any]) -> AttackMap:
    """A saliency map before or after an attack."""
    url = local(f"/api/attack-maps/{found['attack_map']}.npy")
    has = {part: found[f"{part}_file"] is not None for part in ("difference", "standard_error")}
    return members_of(
        AttackMap,
        found,
        {
            "npy": url,
            "difference_npy": f"{url}?part=difference" if has["difference"] else None,
            "standard_error_npy": f"{url}?part=standard_error" if has["standard_error"] else None,
        },
    )
