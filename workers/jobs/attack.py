"""Jobs of kind `attack`: one image under one model per item."""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import Connection, delete, insert, select, update
from torch import Tensor

from db.ledger.engine import now
from db.ledger.jobs import Record
from db.ledger.tables import Attack, AttackLayer, AttackUnit
from workers.attacks.registry import ATTACKS
from workers.attacks.search import smallest_epsilons
from workers.attacks.shifts import Shift, shifts
from workers.attacks.steps import to_uint8
from workers.attacks.walk import Checked, Search
from workers.jobs.attack_context import AttackContext
from workers.jobs.context import PERMANENT_ERRORS, class_of, digest_of
from workers.jobs.stored_images import StoredImage
from workers.models.probabilities import class_probabilities
from workers.models.vision import VisionModel
from workers.models.vocabularies import ClassEntry
from workers.queue.runner import Computed, ItemFailed, Report
from workers.requests.attacks import attack_question
from workers.requests.epsilons import Epsilons, GeometricGrid, grid_of
from workers.requests.keys import key_in_set

FOLDER = "attacks"
UNITS_A_LAYER = 5
TOP = 5  # classes kept for each epsilon
_FILES = ("file", "input_file", "change_file", "steps_file")


Inside = tuple[list[Record], list[Record]]  # rows of `attack_units` and of `attack_layers`


@dataclass(frozen=True)
class Asked:
    """One item's attack. `label`: a class of the model, if the attack goes by labels; see `attack_question`."""

    digest: str
    image: StoredImage
    label: int | None
    question: str
    key: str


class AttackJobs:
    """Searches for the smallest epsilon, or attacks with a fixed one."""

    def __init__(self, shared: AttackContext) -> None:
        self._shared = shared
        self._context = shared.context

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.queue.runner.Kind`."""
        try:
            return self._compute(item, parameters, job, on_progress)
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error

    def _compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report
    ) -> Computed:
        begun = time.monotonic()
        asked = self._asked(item, parameters)
        known = self._known(asked.key)
        if known is not None:
            return self._again(known, item, parameters)
        context = self._context
        model = context.model(item["model"], parameters)
        picture = context.picture(model, asked.image)
        pixels = context.pixels(picture)
        grid = grid_of(parameters["parameters"])
        found = self._search(model, pixels, parameters, asked.label, grid, on_progress)
        row: Record = {
            "key": asked.key,
            "question": asked.question,
            "job": job,
            "model": model.name,
            "model_digest": asked.digest,
            "image_set": parameters["image_set"],
            "image_id": asked.image.image_id,
            "image_key": asked.image.key,
            "method": parameters["method"],
            "relative_to": parameters["relative_to"],
            **search_columns(found, model.vocabulary.classes),
            **grid_columns(grid, parameters["parameters"]),
            "input_file": context.keep_input(model, asked.image, picture),
            "steps_file": context.results.write_array(
                FOLDER, f"{asked.question}-steps", steps_array(found, grid)
            ),
            "parameters": dict(parameters["parameters"]),
            "device": str(context.models.device),
            "created": now(),
            **self._keep_attacked(model, asked.question, pixels, found, parameters),
        }
        inside: Inside = [], []
        if found.attacked is not None and not torch.equal(found.attacked, pixels[0].cpu()):
            on_progress(1, 1, "shifts by layer")
            attacked = found.attacked.to(pixels.device)
            inside = self._inside(model, asked.digest, parameters["image_set"], pixels[0], attacked)
        row["seconds"] = time.monotonic() - begun
        return Computed(partial(_store, row=row, inside=inside))

    def _asked(self, item: Record, parameters: Mapping[str, Any]) -> Asked:
        context = self._context
        digest = digest_of(item["model"], parameters)
        image = context.image(parameters["image_set"], item)
        label = None
        if parameters["relative_to"] == "label":
            label = context.label_of(context.model(item["model"], parameters), parameters["image_set"], image)
        question = attack_question(digest, parameters, image.key, label)
        key = key_in_set(question, parameters["image_set"], image.image_id)
        return Asked(digest, image, label, question, key)

    def _again(self, number: int, item: Record, parameters: Mapping[str, Any]) -> Computed:
        """The known attack; shifts inside are measured again if they were ranked by an earlier rule."""
        with self._context.ledger.read() as connection:
            earlier = connection.execute(
                select(AttackLayer.attack).where(AttackLayer.attack == number, AttackLayer.dead.is_(None))
            ).first()
        if earlier is None:
            return Computed(lambda _connection: number)
        found = self._shared.found(number)
        model = self._context.model(item["model"], parameters)
        inside = self._inside(model, found["model_digest"], found["image_set"], *self._shared.images(found))

        def store(connection: Connection) -> int:
            for table in (AttackUnit, AttackLayer):
                connection.execute(delete(table).where(table.attack == number))
            _keep_inside(connection, number, inside)
            return number

        return Computed(store)

    def _inside(
        self, model: VisionModel, digest: str, image_set: str, before: Tensor, after: Tensor
    ) -> Inside:
        """Rows of `attack_units` and of `attack_layers`, without the attack's number."""
        spreads = self._shared.spreads(model.name, digest, image_set)
        moved = shifts(model, self._shared.taps(model, digest), before, after)
        units = [unit for shift in moved for unit in unit_rows(shift, spreads.get(shift.tap.layer))]
        return units, [layer_row(shift, spreads.get(shift.tap.layer)) for shift in moved]

    def _known(self, key: str) -> int | None:
        """The number of the attack with that key, if all its files exist."""
        columns = [Attack.attack, *(getattr(Attack, file) for file in _FILES)]
        with self._context.ledger.read() as connection:
            found = connection.execute(select(*columns).where(Attack.key == key)).mappings().one_or_none()
        if found is None:
            return None
        files = [found[file] for file in _FILES if found[file] is not None]
        return (
            int(found["attack"]) if all(self._context.results.path(file).exists() for file in files) else None
        )

    def _search(
        self,
        model: VisionModel,
        pixels: Tensor,
        parameters: Mapping[str, Any],
        reference: int | None,
        grid: Epsilons,
        on_progress: Report,
    ) -> Search:
        options = parameters["parameters"]
        target = parameters["target"]
        if target is not None:
            reference = class_of(model, int(target))
        classes = model.vocabulary.classes
        points = grid.points

        def tell(_image: int, checked: Checked) -> None:
            done = bisect_right(points, checked.epsilon)
            name = classes[checked.predicted].name or f"class {checked.predicted}"
            what = f"epsilon {checked.epsilon:.4g}: {name}, {checked.probability:.1%}"
            on_progress(done, len(points), what)

        on_progress(0, 1, "gradient")
        (found,) = smallest_epsilons(
            model,
            pixels,
            None if reference is None else torch.tensor([reference], device=pixels.device),
            grid=grid,
            perturb=ATTACKS[parameters["method"]].perturbation(options),
            targeted=target is not None,
            full_scan=options.get("scan") == "full",
            on_checked=tell,
            # a folded network rounds differently, so the signs of near-zero gradients come from the network
            # itself
            forward=self._shared.folded(model, pixels),
        )
        return found

    def _keep_attacked(
        self,
        model: VisionModel,
        question: str,
        pixels: Tensor,
        found: Search,
        parameters: Mapping[str, Any],
    ) -> Record:
        """Store the attacked image and its perturbation; returns the prediction for the image as stored on disk."""
        none = ("file", "change_file", "png_class", "png_name", "png_probability", "png_succeeds")
        if found.attacked is None:
            return dict.fromkeys(none)
        results = self._context.results
        file = results.write_picture(FOLDER, question, to_uint8(found.attacked).permute(1, 2, 0).numpy())
        if ATTACKS[parameters["method"]].perturb is None:
            signs = (found.direction.to(torch.int16) * 127 + 128).to(torch.uint8)
            change = results.write_picture(FOLDER, f"{question}-signs", signs.permute(1, 2, 0).numpy())
        else:
            change = results.write_array(
                FOLDER, f"{question}-change", (found.attacked - pixels[0].cpu()).numpy()
            )
        again = results.read_picture(file)
        with torch.inference_mode():
            probabilities = class_probabilities(model(self._context.pixels(again)))[0]
        verdict = int(probabilities.argmax())
        return {
            "file": file,
            "change_file": change,
            "png_class": verdict,
            "png_name": model.vocabulary.classes[verdict].name,
            "png_probability": float(probabilities[verdict]),
            "png_succeeds": (verdict == found.reference) == (parameters["target"] is not None),
        }


def search_columns(found: Search, classes: Sequence[ClassEntry]) -> Record:
    """The columns of `attacks` for the search's outcome."""
    shown = found.shown
    return {
        "class_index": found.reference,
        "class_name": classes[found.reference].name,
        "outcome": found.outcome,
        "epsilon": found.epsilon,
        "last_failure": found.last_failure,
        "at_most": found.at_most,
        "class_before": found.before.predicted,
        "name_before": classes[found.before.predicted].name,
        "probability_before": found.before.probability,
        "attacked_epsilon": None if shown is None else shown.epsilon,
        "class_after": None if shown is None else shown.predicted,
        "name_after": None if shown is None else classes[shown.predicted].name,
        "probability_after": None if shown is None else shown.probability,
        "gradient_norm": found.gradient_norm,
        "checked": len(found.checked),
        "successes": [list(run) for run in found.successes],
    }


def grid_columns(grid: Epsilons, options: Mapping[str, Any]) -> Record:
    """The columns of `attacks` for the epsilons that were tried."""
    geometric = isinstance(grid, GeometricGrid)
    return {
        "grid": "fixed" if options["mode"] == "fixed" else "geometric" if geometric else "linear",
        "ratio": grid.ratio if isinstance(grid, GeometricGrid) else None,
        "parts": grid.parts if isinstance(grid, GeometricGrid) else None,
        "step": grid.step,
        "cap": grid.cap,
        "minimum": grid.minimum,
        "eight_bit": grid.integer,
        "full_scan": options.get("scan") == "full",
    }


def _store(connection: Connection, *, row: Record, inside: Inside) -> int:
    """Write an attack with its shifts inside; returns its number."""
    number = connection.execute(select(Attack.attack).where(Attack.key == row["key"])).scalar()
    if number is not None:  # another job's, or this one's with its files restored
        files = {name: row[name] for name in _FILES}
        connection.execute(update(Attack).where(Attack.attack == number).values(files))
        return int(number)
    number = connection.execute(insert(Attack).values(row).returning(Attack.attack)).scalar_one()
    _keep_inside(connection, number, inside)
    return int(number)


def _keep_inside(connection: Connection, attack: int, inside: Inside) -> None:
    for table, rows in zip((AttackUnit, AttackLayer), inside, strict=True):
        if rows:
            connection.execute(insert(table), [{"attack": attack, **row} for row in rows])


def steps_array(found: Search, grid: Epsilons) -> npt.NDArray[np.float32]:
    """The steps of a search as an array of shape n, 2 + 2 * TOP.

    Columns: number of the epsilon (0: no change; i of a linear grid's i * step; for a geometric grid see
    `GeometricGrid.number`), probability of the reference class, class and probability of the top classes,
    highest first; -1 and 0 if the model has fewer.
    """
    table = np.zeros((len(found.checked), 2 + 2 * TOP), np.float32)
    for line, checked in zip(table, found.checked, strict=True):
        top = [*checked.top, *[(-1, 0.0)] * (TOP - len(checked.top))]
        line[:] = [
            grid.number(checked.epsilon)
            if isinstance(grid, GeometricGrid)
            else round(checked.epsilon / grid.step),
            checked.reference_probability,
            *(value for pair in top for value in pair),
        ]
    return table


def unit_rows(shift: Shift, spreads: Tensor | None) -> list[Record]:
    """Rows of `attack_units` for the channels that shifted most at one tap."""
    rows = []
    for rank, channel in enumerate(shift.most_moved(UNITS_A_LAYER, spreads), 1):
        moved = float(shift.shift[channel])
        rows.append(
            {
                "layer": shift.tap.layer,
                "rank": rank,
                "channel": channel,
                "activation_before": float(shift.before[channel]),
                "activation_after": float(shift.after[channel]),
                "shift": moved,
                "deviations": None if spreads is None else moved / float(spreads[channel]),
                "y_before": int(shift.at_before[channel, 0]),
                "x_before": int(shift.at_before[channel, 1]),
                "y": int(shift.at_after[channel, 0]),
                "x": int(shift.at_after[channel, 1]),
            }
        )
    return rows


def layer_row(shift: Shift, spreads: Tensor | None) -> Record:
    """The row of `attack_layers` for one tap."""
    live = shift.live(spreads)
    deviations = None
    if spreads is not None and live:
        deviations = float(shift.sizes(spreads)[live].mean())
    return {
        "layer": shift.tap.layer,
        "position": shift.tap.position,
        "mean_shift": float(shift.shift.abs().mean()),
        "mean_deviations": deviations,
        "relative_change": shift.relative_change,
        "dead": shift.tap.channels - len(live),
    }
