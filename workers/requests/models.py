"""The models of a request: whether they are indexed, and whether they have a class or a layer. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from db.atlas.store import Atlas, NoAtlas
from db.queries.inventory import class_counts, keeps_modules, layers, modules, runs
from db.suggestions import choices, meant
from workers.requests.parameters import InvalidRequest


@dataclass(frozen=True)
class ModelRef:
    """A model, by the specification that loads it and the digest that its numbers depend on (`VisionModel.digest`)."""

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
    """The indexed models with these names.

    Raises:
        InvalidRequest: no name is given, or a model is not indexed.
    """
    known = indexed_models(atlas)
    for name in names:
        if name not in known:
            have = choices(name, known, nouns="indexed models are") if known else "no model is indexed yet"
            raise InvalidRequest(f"models: {name!r} is not indexed; {have}")
    if not names:
        raise InvalidRequest("models: expected at least one, got none")
    return tuple(known[name] for name in dict.fromkeys(names))


def check_classes(atlas: Atlas, models: Sequence[ModelRef], target: int | None) -> None:
    """Check that those of the models that are indexed have a class with that index.

    Raises:
        InvalidRequest: one has not; the message states its classes.
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
    """Check that those of the models that are indexed have a layer or a module with that name.

    A module's later calls are named by its path with "-2" and so on. The atlas does not know how often a
    module is called or whether it returns a map; the worker checks that.

    Raises:
        InvalidRequest: one has neither.
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
                f"layer: {model.name} has no layer or module {layer!r}; its layers are, for example, "
                f"{', '.join(examples)}" + ("" if near is None else f"; did you mean {near!r}?")
            )
    except NoAtlas:
        return
