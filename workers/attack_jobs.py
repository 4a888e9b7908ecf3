"""Jobs of kind `attack`, one image under one model an item; and what is asked of attacks that were found."""

import io
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sqlalchemy import Connection, delete, insert, select
from torch import Tensor
from torch.nn import functional as F

from db.index_queries import channel_spreads
from db.jobs import Record
from db.ledger import now
from db.ledger_tables import Attack, AttackAblation, AttackLayer, AttackMap, AttackTransfer, AttackUnit
from workers.ablation import clean_means, held, random_units
from workers.attack_requests import Grid, grid_of
from workers.attack_units import Shift, shifts
from workers.attacks import Checked, Pgd, Search, perturbed, smallest_epsilons, to_uint8
from workers.bench import ITS_OWN, Bench, class_of, digest_of, label_of
from workers.comparison import Panel, compare, random_signs
from workers.folding import folded
from workers.gradients import Network
from workers.keys import content_key
from workers.models import VisionModel
from workers.running import Computed, ItemFailed, Report
from workers.stored_images import StoredImage
from workers.submit_attacks import attack_key
from workers.taps import Tap, find_taps

FOLDER = "attacks"
UNITS_A_LAYER = 5
TOP = 5  # classes kept for each epsilon
_FILES = ("file", "input_file", "change_file", "steps_file")


class AttackBench:
    """What the kinds below share beside their bench: taps of models, and attacks that were found."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._taps: dict[tuple[str, str], tuple[Tap, ...]] = {}
        self._folded: WeakKeyDictionary[VisionModel, Any] = WeakKeyDictionary()

    def taps(self, model: VisionModel, digest: str) -> tuple[Tap, ...]:
        """The model's taps, found once."""
        key = (model.source, digest)
        if key not in self._taps:
            self._taps[key] = find_taps(model)
        return self._taps[key]

    def folded(self, model: VisionModel, pixels: Tensor) -> Network | None:
        """The model with quicker forward passes, made once; nothing where it has none."""
        if model not in self._folded:
            made = folded(model, pixels)
            # a value that is its own key would keep a model that was dropped
            self._folded[model] = None if made is model else made
        quicker: Network | None = self._folded[model]
        return quicker

    def spreads(self, model: str, digest: str, image_set: str) -> dict[str, Tensor]:
        """Standard deviation of each channel's activation over the set, by layer; empty where it was not indexed."""
        rows = self.bench.atlas.fetch(channel_spreads(model, digest, image_set))
        return {row["layer"]: torch.tensor(row["spreads"], dtype=torch.float64) for row in rows}

    def found(self, number: int) -> Record:
        """The row of an attack."""
        with self.bench.ledger.read() as connection:
            rows = connection.execute(select(Attack.__table__).where(Attack.attack == number)).mappings()
            return dict(rows.one())

    def images(self, found: Record) -> tuple[Tensor, Tensor]:
        """The image before and the attacked image, float32 3,H,W in [0, 1], as they were classified.

        Raises:
            ItemFailed: a file is gone.
        """
        before = self.bench.pixels(self._picture(found["input_file"]))[0]
        change = found["change_file"]
        if change is None:
            return before, before.clone()
        if change.endswith(".npy"):
            moved = before + torch.from_numpy(self.bench.results.read_array(change)).to(
                before.device
            ).view_as(before)
            return before, moved
        signs = (torch.from_numpy(self._picture(change).astype(np.float32)).permute(2, 0, 1) - 128) / 127
        epsilon = found["attacked_epsilon"]
        return before, perturbed(before, signs.to(before), epsilon, integer=found["eight_bit"])

    def _picture(self, file: str) -> npt.NDArray[np.uint8]:
        try:
            return np.array(Image.open(io.BytesIO(self.bench.results.path(file).read_bytes())).convert("RGB"))
        except OSError as error:
            raise ItemFailed(f"the file {file} is gone: attack again") from error


class AttackJobs:
    """Searches for the smallest epsilon, or attacks with one."""

    def __init__(self, shared: AttackBench) -> None:
        self._shared = shared
        self._bench = shared.bench

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """See `workers.running.Kind`."""
        try:
            return self._compute(item, parameters, job, on_progress)
        except ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error

    def _compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report
    ) -> Computed:
        begun = time.monotonic()
        bench = self._bench
        digest = digest_of(item["model"], parameters)
        image = bench.image(parameters["image_set"], item)
        key = attack_key(digest, parameters, asdict(image))
        known = self._known(key)
        if known is not None and all(
            known[file] is None or bench.results.path(known[file]).exists() for file in _FILES
        ):
            number = int(known["attack"])
            return Computed(lambda _connection: number)
        model = bench.model(item["model"], parameters)
        picture = bench.picture(model, image)
        pixels = bench.pixels(picture)
        grid = grid_of(parameters["parameters"])
        found = self._search(model, image, pixels, parameters, grid, on_progress)
        classes = model.vocabulary.classes
        shown = found.shown
        row: Record = {
            "key": key,
            "job": job,
            "model": model.name,
            "model_digest": digest,
            "image_set": parameters["image_set"],
            "image_id": image.image_id,
            "image_key": image.key,
            "method": parameters["method"],
            "relative_to": parameters["relative_to"],
            "class_index": found.reference,
            "class_name": classes[found.reference].name,
            "outcome": found.outcome,
            "epsilon": found.epsilon,
            "step": grid.step,
            "cap": grid.cap,
            "minimum": grid.minimum,
            "eight_bit": grid.integer,
            "full_scan": parameters["parameters"].get("scan") == "full",
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
            "input_file": bench.keep_input(model, image, picture),
            "steps_file": bench.results.write_array(FOLDER, f"{key}-steps", steps_array(found, grid)),
            "parameters": dict(parameters["parameters"]),
            "device": str(bench.models.device),
            "created": now(),
            **self._keep_attacked(model, key, pixels, found, parameters),
        }
        moved: list[Shift] = []
        spreads: dict[str, Tensor] = {}
        if found.attacked is not None and not torch.equal(found.attacked, pixels[0].cpu()):
            on_progress(1, 1, "what moved inside")
            spreads = self._shared.spreads(model.name, digest, parameters["image_set"])
            taps = self._shared.taps(model, digest)
            moved = shifts(model, taps, pixels[0], found.attacked.to(pixels.device))
        units = [unit for shift in moved for unit in unit_rows(shift, spreads.get(shift.tap.layer))]
        layers = [layer_row(shift, spreads.get(shift.tap.layer)) for shift in moved]
        row["seconds"] = time.monotonic() - begun

        def store(connection: Connection) -> int:
            number = connection.execute(select(Attack.attack).where(Attack.key == key)).scalar()
            if number is not None:
                return int(number)  # another job's, or this one's with its files restored
            number = connection.execute(insert(Attack).values(row).returning(Attack.attack)).scalar_one()
            for table, rows in ((AttackUnit, units), (AttackLayer, layers)):
                if rows:
                    connection.execute(insert(table), [{"attack": number, **found} for found in rows])
            return number

        return Computed(store)

    def _known(self, key: str) -> Record | None:
        columns = [Attack.attack, *(getattr(Attack, file) for file in _FILES)]
        with self._bench.ledger.read() as connection:
            found = connection.execute(select(*columns).where(Attack.key == key)).mappings().one_or_none()
        return None if found is None else dict(found)

    def _search(
        self,
        model: VisionModel,
        image: StoredImage,
        pixels: Tensor,
        parameters: Mapping[str, Any],
        grid: Grid,
        on_progress: Report,
    ) -> Search:
        options = parameters["parameters"]
        target = parameters["target"]
        reference = None
        if target is not None:
            reference = class_of(model, int(target))
        elif parameters["relative_to"] == "label":
            reference = label_of(image, model)
        classes = model.vocabulary.classes

        def tell(_image: int, checked: Checked) -> None:
            done = round(checked.epsilon / grid.step) - grid.first + 1
            name = classes[checked.predicted].name or f"class {checked.predicted}"
            what = f"epsilon {checked.epsilon:.4g}: {name}, {checked.probability:.1%}"
            on_progress(done, grid.last - grid.first + 1, what)

        on_progress(0, 1, "gradient")
        (found,) = smallest_epsilons(
            model,
            pixels,
            None if reference is None else torch.tensor([reference], device=pixels.device),
            grid=grid,
            how=pgd_of(parameters["method"], options),
            targeted=target is not None,
            full_scan=options.get("scan") == "full",
            on_checked=tell,
            # a folded network rounds otherwise: the signs of gradients next to zero are those of the network itself
            forward=self._shared.folded(model, pixels),
        )
        return found

    def _keep_attacked(
        self,
        model: VisionModel,
        key: str,
        pixels: Tensor,
        found: Search,
        parameters: Mapping[str, Any],
    ) -> Record:
        """Keep the attacked image and how it was made; what the model says of it as it lies on the disk."""
        none = ("file", "change_file", "png_class", "png_name", "png_probability", "png_succeeds")
        if found.attacked is None:
            return dict.fromkeys(none)
        results = self._bench.results
        file = results.write_picture(FOLDER, key, to_uint8(found.attacked).permute(1, 2, 0).numpy())
        if parameters["method"] == "fgsm":
            signs = (found.direction.to(torch.int16) * 127 + 128).to(torch.uint8)
            change = results.write_picture(FOLDER, f"{key}-signs", signs.permute(1, 2, 0).numpy())
        else:
            change = results.write_array(FOLDER, f"{key}-change", (found.attacked - pixels[0].cpu()).numpy())
        again = np.array(Image.open(io.BytesIO(results.path(file).read_bytes())))
        with torch.inference_mode():
            probabilities = model(self._bench.pixels(again))[0].to("cpu", torch.float64).softmax(0)
        verdict = int(probabilities.argmax())
        return {
            "file": file,
            "change_file": change,
            "png_class": verdict,
            "png_name": model.vocabulary.classes[verdict].name,
            "png_probability": float(probabilities[verdict]),
            "png_succeeds": (verdict == found.reference) == (parameters["target"] is not None),
        }


def pgd_of(method: str, options: Mapping[str, Any]) -> Pgd | None:
    """How PGD walks, from a parsed request; None for FGSM."""
    if method == "fgsm":
        return None
    return Pgd(options["steps"], options["step_size"], options["seed"])


def steps_array(found: Search, grid: Grid) -> npt.NDArray[np.float32]:
    """n, 2 + 2 * TOP: point of the grid (0: no change), probability of the reference class, class and probability
    of the top classes, best first; -1 and 0 where the model has fewer."""
    table = np.zeros((len(found.checked), 2 + 2 * TOP), np.float32)
    for line, checked in zip(table, found.checked, strict=True):
        top = [*checked.top, *[(-1, 0.0)] * (TOP - len(checked.top))]
        line[:] = [
            round(checked.epsilon / grid.step),
            checked.reference_probability,
            *(value for pair in top for value in pair),
        ]
    return table


def unit_rows(shift: Shift, spreads: Tensor | None) -> list[Record]:
    """Rows of `attack_units` for the channels that moved most at one tap."""
    rows = []
    for rank, channel in enumerate(shift.most_moved(UNITS_A_LAYER, spreads), 1):
        moved = float(shift.shift[channel])
        spread = None if spreads is None else float(spreads[channel])
        rows.append(
            {
                "layer": shift.tap.layer,
                "rank": rank,
                "channel": channel,
                "activation_before": float(shift.before[channel]),
                "activation_after": float(shift.after[channel]),
                "shift": moved,
                "deviations": moved / spread if spread else None,
                "y_before": int(shift.at_before[channel, 0]),
                "x_before": int(shift.at_before[channel, 1]),
                "y": int(shift.at_after[channel, 0]),
                "x": int(shift.at_after[channel, 1]),
            }
        )
    return rows


def layer_row(shift: Shift, spreads: Tensor | None) -> Record:
    """The row of `attack_layers` for one tap."""
    size = shift.shift.abs()
    deviations = None
    if spreads is not None and bool((spreads > 0).any()):
        deviations = float((size[spreads > 0] / spreads[spreads > 0]).mean())
    return {
        "layer": shift.tap.layer,
        "position": shift.tap.position,
        "mean_shift": float(size.mean()),
        "mean_deviations": deviations,
        "relative_change": shift.relative_change,
    }


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
            key = content_key(found["key"], request, name)
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
        except ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        size = judge.preprocessing.input_size
        if pair.shape[2:] != size:
            pair = F.interpolate(pair, size, mode="bilinear", antialias=True).clamp(0, 1)
        with torch.inference_mode():
            probabilities = judge(pair).to("cpu", torch.float64).softmax(1)
        classes = judge.vocabulary.classes
        label = judge.vocabulary.index_of_label(image.wnid, image.label)
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
                    AttackTransfer.attack == number, AttackTransfer.judge == judge.name
                )
            )
            connection.execute(insert(AttackTransfer).values(row))
            return number

        return Computed(store)


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
            "channels": parameters["channels"],
            "job": job,
            "seed": parameters["seed"],
            "units": [[layer, channel] for layer, channels in units.items() for channel in channels],
            **made[0],
            "random": made[1:],
            "seconds": time.monotonic() - begun,
            "created": now(),
        }

        def store(connection: Connection) -> int:
            connection.execute(
                delete(AttackAblation).where(
                    AttackAblation.attack == number, AttackAblation.channels == parameters["channels"]
                )
            )
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
        grid = Grid(found["step"], found["cap"], found["minimum"], found["eight_bit"])

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
