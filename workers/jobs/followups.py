"""Jobs about completed attacks: maps before and after, transfer to other models, channel ablation."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from sqlalchemy import Connection, delete, insert
from torch import Tensor
from torch.nn import functional as F

from db.ledger.engine import now
from db.ledger.jobs import Record
from db.ledger.tables import AttackAblation, AttackMap, AttackTransfer
from workers.attacks.ablation import Units, clamp_channels, clean_means, judge, random_sets
from workers.attacks.comparison import Panel, compare, random_signs
from workers.attacks.registry import ATTACKS
from workers.attacks.search import smallest_epsilons
from workers.attacks.shifts import Shift, shifts
from workers.attacks.walk import Checked
from workers.attribution.gradcam import choose_map
from workers.jobs.attack import UNITS_A_LAYER
from workers.jobs.attack_context import AttackContext
from workers.jobs.context import PERMANENT_ERRORS, digest_of
from workers.layers.module_maps import as_tap
from workers.layers.taps import Tap
from workers.models.probabilities import class_probabilities
from workers.models.vision import VisionModel
from workers.queue.runner import Computed, ItemFailed, Report
from workers.requests.epsilons import grid_of
from workers.requests.keys import content_key

# Weights of R, G, B in gray, as in Pillow's mode L.
_LUMINANCE = (0.299, 0.587, 0.114)


class ComparisonJobs:
    """SmoothGrad before and after an attack."""

    def __init__(self, shared: AttackContext) -> None:
        self._shared = shared
        self._context = shared.context

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.queue.runner.Kind`."""
        begun = time.monotonic()
        options = parameters["parameters"]
        number = int(item["subject"])
        found = self._shared.found(number)
        try:
            model = self._context.model(item["model"], parameters)
            before, after = self._shared.images(found)
            panels = _panels(found, before, after, seed=options["seed"])
            compared = compare(
                model,
                list(panels.values()),
                samples=options["samples"],
                noise_level=options["noise_level"],
                on_progress=on_progress,
            )
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        request = content_key(options)
        classes = model.vocabulary.classes
        rows: list[Record] = []
        for (name, panel), made in zip(panels.items(), compared, strict=True):
            key = content_key(number, request, name)
            first = name == "clean"
            spread = made.standard_error
            assert spread is not None  # requests have at least two samples
            rows.append(
                {
                    "attack": number,
                    "job": job,
                    "request": request,
                    "panel": name,
                    "target_class": panel.target,
                    "target_name": classes[panel.target].name,
                    "samples": options["samples"],
                    "noise_level": options["noise_level"],
                    "seed": panel.seed,
                    "rank_correlation": None if first else made.rank_correlation,
                    "ssim": None if first else made.ssim,
                    "mean_difference": None if first else float(made.difference.abs().mean()),
                    "mean_standard_error": None if first else float(spread.mean()),
                    "beyond_noise": None if first else made.beyond_noise,
                    "file": self._keep(key, made.map),
                    "difference_file": None if first else self._keep(f"{key}-difference", made.difference),
                    "standard_error_file": None if first else self._keep(f"{key}-se", spread),
                    "seconds": time.monotonic() - begun,
                    "created": now(),
                }
            )

        def store(connection: Connection) -> int:
            connection.execute(
                delete(AttackMap).where(AttackMap.attack == number, AttackMap.request == request)
            )
            connection.execute(insert(AttackMap), rows)
            return number

        return Computed(store)

    def _keep(self, name: str, values: Tensor) -> str:
        return self._context.results.write_array("comparisons", name, values.to(torch.float32).numpy())


def _panels(found: Record, before: Tensor, after: Tensor, *, seed: int) -> dict[str, Panel]:
    """What is compared with the clean map. All explain the class before, except `attacked_own`: the class after."""
    target, own = found["class_before"], found["class_after"]
    noisy = random_signs(before, found["attacked_epsilon"], seed=seed, integer=found["eight_bit"])
    return {
        "clean": Panel(before, target, seed),
        "attacked": Panel(after, target, seed),
        "attacked_own": Panel(after, own, seed),
        "other_seed": Panel(before, target, seed + 1),
        "random_signs": Panel(noisy, target, seed),
    }


class TransferJobs:
    """Predictions of other models on attacked images."""

    def __init__(self, shared: AttackContext) -> None:
        self._shared = shared
        self._context = shared.context

    def compute(
        self,
        item: Record,
        parameters: Mapping[str, Any],
        job: int,
        on_progress: Report,  # noqa: ARG002  # one pass
    ) -> Computed:
        """See `workers.queue.runner.Kind`."""
        number = int(item["subject"])
        found = self._shared.found(number)
        try:
            judge = self._context.model(item["model"], parameters)
            image = self._context.image(found["image_set"], item)
            pair = torch.stack(self._shared.images(found))
            pair = _in_channels(pair, judge.preprocessing.channels)
            size = judge.preprocessing.input_size
            if pair.shape[2:] != size:
                pair = F.interpolate(pair, size, mode="bilinear", antialias=True).clamp(0, 1)
            with torch.inference_mode():
                probabilities = class_probabilities(judge(pair))
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        classes = judge.vocabulary.classes
        label = self._context.label_index(judge, found["image_set"], image)
        before, after = (int(index) for index in probabilities.argmax(1))
        row = {
            "attack": number,
            "judge": judge.name,
            "judge_digest": digest_of(item["model"], parameters),
            "job": job,
            "class_before": before,
            "name_before": classes[before].name,
            "probability_before": float(probabilities[0, before]),
            "class_after": after,
            "name_after": classes[after].name,
            "probability_after": float(probabilities[1, after]),
            "right_before": None if label is None else before == label,
            "moved": before != after,
            "created": now(),
        }

        def store(connection: Connection) -> int:
            connection.execute(
                delete(AttackTransfer).where(
                    AttackTransfer.attack == number,
                    AttackTransfer.judge == judge.name,
                    AttackTransfer.judge_digest == row["judge_digest"],
                )
            )
            connection.execute(insert(AttackTransfer).values(row))
            return number

        return Computed(store)


def _in_channels(pixels: Tensor, channels: int) -> Tensor:
    """Images N,C,H,W for a model of `channels` channels: ITU-R 601 luminance for one, gray repeated for three."""
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    return (pixels * pixels.new_tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


class AblationJobs:
    """The search repeated with the most shifted channels clamped, and with equally many random ones."""

    def __init__(self, shared: AttackContext) -> None:
        self._shared = shared
        self._context = shared.context

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.queue.runner.Kind`."""
        begun = time.monotonic()
        number = int(item["subject"])
        found = self._shared.found(number)
        identity = {name: parameters[name] for name in ("channels", "draws", "seed", "layer")}
        try:
            model = self._context.model(item["model"], parameters)
            before, after = self._shared.images(found)
            taps = self._taps(model, found["model_digest"], identity["layer"])
            spreads = self._shared.spreads(model.name, found["model_digest"], found["image_set"])
            moved = shifts(model, taps, before, after)
            units = most_moved(
                moved, spreads, identity["channels"], a_layer=None if identity["layer"] else UNITS_A_LAYER
            )
            if not units:
                raise ItemFailed(f"attack {number} shifted no live channel: there is none to clamp")
            live = {
                shift.tap.layer: shift.live(spreads.get(shift.tap.layer))
                for shift in moved
                if shift.tap.layer in units
            }
            random: list[dict[str, list[int]]] = []
            short: str | None = None
            if found["outcome"] == "flipped":  # else there is nothing to compare
                random, short = random_sets(live, units, draws=identity["draws"], seed=identity["seed"])
            held_taps = [tap for tap in taps if tap.layer in units]
            made = self._search(model, held_taps, before, found, [units, *random], on_progress)
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        row = {
            "attack": number,
            **identity,
            "job": job,
            "units": [[layer, channel] for layer, channels in units.items() for channel in channels],
            **made[0],
            "random": made[1:],
            **asdict(judge(found, made[0], made[1:], short=short)),
            "seconds": time.monotonic() - begun,
            "created": now(),
        }

        def store(connection: Connection) -> int:
            same = delete(AttackAblation).where(AttackAblation.attack == number)
            connection.execute(same.filter_by(**identity))
            connection.execute(insert(AttackAblation).values(row))
            return number

        return Computed(store)

    def _taps(self, model: VisionModel, digest: str, layer: str) -> Sequence[Tap]:
        """The layers whose channels may be clamped: all indexed ones, or the output of one module."""
        taps = self._shared.taps(model, digest)
        if not layer:
            return taps
        found = choose_map(model, layer)
        same = [tap for tap in taps if (tap.module, tap.call) == (found.module, found.call)]
        return same or [as_tap(found)]

    @staticmethod
    def _search(
        model: VisionModel,
        taps: Sequence[Tap],
        before: Tensor,
        found: Record,
        sets: Sequence[Units],
        on_progress: Report,
    ) -> list[Record]:
        """The search's results with each set of channels clamped, all in the same passes."""
        grid = grid_of(found["parameters"])
        shares = [0.0] * len(sets)

        def tell(place: int, checked: Checked) -> None:
            shares[place] = max(shares[place], checked.epsilon / grid.cap)
            what = "the most shifted channels clamped" if place == 0 else f"random channels, draw {place}"
            on_progress(round(1000 * sum(shares)), 1000 * len(sets), f"{what}: epsilon {checked.epsilon:.4g}")

        with clamp_channels(model, taps, sets, clean_means(model, taps, before)) as rows:
            searches = smallest_epsilons(
                model,
                before.expand(len(sets), -1, -1, -1),
                torch.full((len(sets),), found["class_index"], device=before.device),
                grid=grid,
                perturb=ATTACKS[found["method"]].perturbation(found["parameters"]),
                targeted=found["relative_to"] == "target",
                on_checked=tell,
                on_pass=rows.choose,
            )
        return [
            {
                "outcome": search.outcome,
                "epsilon": search.epsilon,
                "probability": search.before.reference_probability,
            }
            for search in searches
        ]


def most_moved(
    moved: Sequence[Shift], spreads: Mapping[str, Tensor], channels: int, *, a_layer: int | None
) -> dict[str, list[int]]:
    """The most shifted channels over all layers, at most `a_layer` of each.

    Shifts divided by a channel's standard deviation are comparable between layers. Layers that are not
    indexed are left out, unless none is; then the plain shift is used.
    """
    measured = [shift for shift in moved if shift.tap.layer in spreads] or moved
    ranked: list[tuple[float, str, int]] = []
    for shift in measured:
        mine = spreads.get(shift.tap.layer)
        sizes = shift.sizes(mine)
        best = shift.most_moved(a_layer or channels, mine)
        ranked += [(float(sizes[channel]), shift.tap.layer, channel) for channel in best]
    ranked.sort(key=lambda one: -one[0])  # stable: ties go to the earlier layer
    units: dict[str, list[int]] = {}
    for _, layer, channel in ranked[:channels]:
        units.setdefault(layer, []).append(channel)
    return units
