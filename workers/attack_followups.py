"""Jobs about attacks that were found: maps before and after, what other models say of them, channels held."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from sqlalchemy import Connection, delete, insert, select
from torch import Tensor
from torch.nn import functional as F

from db.jobs import Record
from db.ledger import now
from db.ledger_tables import AttackAblation, AttackMap, AttackTransfer, AttackUnit
from workers.ablation import clean_means, held, random_units
from workers.attack_bench import AttackBench, pgd_of
from workers.attack_requests import grid_of
from workers.attacks import Checked, smallest_epsilons
from workers.bench import ITS_OWN, digest_of
from workers.comparison import Panel, compare, random_signs
from workers.keys import content_key
from workers.models import VisionModel
from workers.probabilities import class_probabilities
from workers.running import Computed, ItemFailed, Report

# Weights of R, G, B in gray, as Pillow's mode L has them.
_LUMINANCE = (0.299, 0.587, 0.114)


class ComparisonJobs:
    """SmoothGrad before and after an attack."""

    def __init__(self, shared: AttackBench) -> None:
        self._shared = shared
        self._bench = shared.bench

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.running.Kind`."""
        begun = time.monotonic()
        options = parameters["parameters"]
        number = int(item["subject"])
        found = self._shared.found(number)
        try:
            model = self._bench.model(item["model"], parameters)
            before, after = self._shared.images(found)
            panels = _panels(found, before, after, seed=options["seed"])
            compared = compare(
                model,
                list(panels.values()),
                samples=options["samples"],
                noise_level=options["noise_level"],
                on_progress=on_progress,
            )
        except ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        request = content_key(options)
        classes = model.vocabulary.classes
        rows: list[Record] = []
        for (name, panel), made in zip(panels.items(), compared, strict=True):
            key = content_key(number, request, name)
            first = name == "clean"
            spread = made.standard_error
            assert spread is not None  # requests have two samples or more
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
        return self._bench.results.write_array("comparisons", name, values.to(torch.float32).numpy())


def _panels(found: Record, before: Tensor, after: Tensor, *, seed: int) -> dict[str, Panel]:
    """What is shown beside the clean map. The class explained is the one before, but for the attacked one's own."""
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
    """What other models say of attacked images."""

    def __init__(self, shared: AttackBench) -> None:
        self._shared = shared
        self._bench = shared.bench

    def compute(
        self,
        item: Record,
        parameters: Mapping[str, Any],
        job: int,
        on_progress: Report,  # noqa: ARG002  # one pass
    ) -> Computed:
        """See `workers.running.Kind`."""
        number = int(item["subject"])
        found = self._shared.found(number)
        try:
            judge = self._bench.model(item["model"], parameters)
            image = self._bench.image(found["image_set"], item)
            pair = torch.stack(self._shared.images(found))
            pair = _in_channels(pair, judge.preprocessing.channels)
            size = judge.preprocessing.input_size
            if pair.shape[2:] != size:
                pair = F.interpolate(pair, size, mode="bilinear", antialias=True).clamp(0, 1)
            with torch.inference_mode():
                probabilities = class_probabilities(judge(pair))
        except ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        classes = judge.vocabulary.classes
        label = self._bench.label_index(judge, found["image_set"], image)
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
    """Images N,C,H,W as a model of so many channels takes them: gray by ITU-R 601's luminance, or gray three times."""
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    return (pixels * pixels.new_tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


class AblationJobs:
    """The search once more with the most moved channels held, beside as many random ones."""

    def __init__(self, shared: AttackBench) -> None:
        self._shared = shared
        self._bench = shared.bench

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.running.Kind`."""
        begun = time.monotonic()
        number = int(item["subject"])
        found = self._shared.found(number)
        identity = {name: parameters[name] for name in ("channels", "draws", "seed")}
        units = self._most_moved(number, parameters["channels"])
        if not units:
            raise ItemFailed(f"attack {number} has no channels on record: attack again")
        draws = range(parameters["draws"])
        try:
            model = self._bench.model(item["model"], parameters)
            taps = [tap for tap in self._shared.taps(model, found["model_digest"]) if tap.layer in units]
            before, _ = self._shared.images(found)
            means = clean_means(model, taps, before)
            sets = [units, *(random_units(taps, units, seed=parameters["seed"] + draw) for draw in draws)]
            made = []
            for place, chosen in enumerate(sets):
                what = "the most moved channels held" if place == 0 else f"random channels, draw {place}"
                with held(model, taps, chosen, means):
                    made.append(self._search(model, before, found, place, len(sets), what, on_progress))
        except ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        row = {
            "attack": number,
            **identity,
            "job": job,
            "units": [[layer, channel] for layer, channels in units.items() for channel in channels],
            **made[0],
            "random": made[1:],
            "seconds": time.monotonic() - begun,
            "created": now(),
        }

        def store(connection: Connection) -> int:
            same = delete(AttackAblation).where(AttackAblation.attack == number)
            connection.execute(same.filter_by(**identity))
            connection.execute(insert(AttackAblation).values(row))
            return number

        return Computed(store)

    def _most_moved(self, number: int, channels: int) -> dict[str, list[int]]:
        with self._bench.ledger.read() as connection:
            rows = connection.execute(
                select(AttackUnit.layer, AttackUnit.channel, AttackUnit.shift, AttackUnit.deviations)
                .where(AttackUnit.attack == number)
                .order_by(AttackUnit.layer, AttackUnit.rank)
            ).all()
        # a shift in standard deviations compares over layers; without an index there is only the shift itself
        counted = [row for row in rows if row.deviations is not None] or rows
        best = sorted(counted, key=lambda row: -abs(row.shift if row.deviations is None else row.deviations))
        units: dict[str, list[int]] = {}
        for row in best[:channels]:
            units.setdefault(row.layer, []).append(row.channel)
        return units

    @staticmethod
    def _search(
        model: VisionModel,
        before: Tensor,
        found: Record,
        place: int,
        places: int,
        what: str,
        on_progress: Report,
    ) -> Record:
        grid = grid_of(found["parameters"])

        def tell(_image: int, checked: Checked) -> None:
            share = checked.epsilon / grid.cap
            on_progress(
                round(1000 * (place + share)), 1000 * places, f"{what}: epsilon {checked.epsilon:.4g}"
            )

        (search,) = smallest_epsilons(
            model,
            before.unsqueeze(0),
            torch.tensor([found["class_index"]], device=before.device),
            grid=grid,
            how=pgd_of(found["method"], found["parameters"]),
            targeted=found["relative_to"] == "target",
            on_checked=tell,
        )
        return {
            "outcome": search.outcome,
            "epsilon": search.epsilon,
            "probability": search.before.reference_probability,
        }
