"""The models of a request: which were indexed, and whether they have a class or a layer. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from db.atlas.store import Atlas, NoAtlas
from db.queries.inventory import class_counts, keeps_modules, layers, modules, runs
from db.suggestions import choices, meant
from workers.requests.parameters import InvalidRequest


@dataclass(frozen=True)
class ModelRef:
    """A model by what loads it and what its numbers depend on (`VisionModel.digest`)."""

    name: str
    source: str
    digest: str


def indexed_models(atlas: Atlas) -> dict[str, ModelRef]:
    """The models of the atlas by name."""
    try:
        found = atlas.fetch(runs())
    except NoAtlas:
        return {}
    return {row["model"]: ModelRef(row["model"], row["source"], row["digest"]) for row in found}


def choose_models(atlas: Atlas, names: Sequence[str]) -> tuple[ModelRef, ...]:
    """The indexed models of these names.

    Raises:
        InvalidRequest: none is named, or one that was not indexed.
    """
    known = indexed_models(atlas)
    for name in names:
        if name not in known:
            have = choices(name, known, nouns="indexed models are") if known else "no model was indexed yet"
            raise InvalidRequest(f"models: {name!r} was not indexed; {have}")
    if not names:
        raise InvalidRequest("models: expected at least one, got none")
    return tuple(known[name] for name in dict.fromkeys(names))


def check_classes(atlas: Atlas, models: Sequence[ModelRef], target: int | None) -> None:
    """Whether the indexed ones of the models have a class of that index.

    Raises:
        InvalidRequest: one has not; the message names its classes.
    """
    if target is None:
        return
    try:
        found = {row["model"]: row for row in atlas.fetch(class_counts())}
    except NoAtlas:
        return
    for model in models:
        row = found.get(model.name)
        if row is not None and row["digest"] == model.digest and target >= row["classes"]:
            raise InvalidRequest(
                f"target: {model.name} has classes 0 to {row['classes'] - 1:,}, not {target:,}"
            )


def check_layer(atlas: Atlas, models: Sequence[ModelRef], layer: str) -> None:
    """Whether the indexed ones of the models have a layer or a module of that name.

    Of a module's later calls the names are its path with "-2" and so on. The atlas does not know how often it is
    called, nor whether what it returns is a map: the worker does.

    Raises:
        InvalidRequest: one has none.
    """
    try:
        if not atlas.fetch(keeps_modules()):
            return
        for model in models:
            known = [row["module"] for row in atlas.fetch(modules(model.name, model.digest))]
            named = [row["layer"] for row in atlas.fetch(layers(model.name))]
            if not known or layer in named or re.sub(r"-[2-9]\d*$", "", layer) in known:
                continue
            examples = [named[at] for at in sorted({0, len(named) // 2, len(named) - 1})]
            near = meant(layer, [*named, *known])
            raise InvalidRequest(
                f"layer: {model.name} has no layer or module {layer!r}; its layers are such as "
                f"{', '.join(examples)}" + ("" if near is None else f"; did you mean {near!r}?")
            )
    except NoAtlas:
        return
