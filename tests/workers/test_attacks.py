"""Attacks against Foolbox, torchattacks and a plain scan; and the definitions of epsilon, grid and success."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import convscope
from workers.attacks.fgsm import fgsm
from workers.attacks.pgd import Pgd, pgd
from workers.attacks.registry import ATTACKS, parse_attack
from workers.attacks.search import smallest_epsilons
from workers.attacks.steps import loss_gradient, perturbed, to_uint8
from workers.attacks.walk import Search
from workers.attribution.gradients import chunk_size
from workers.models.vision import VisionModel, load_model
from workers.requests.epsilons import START, GeometricGrid, Grid, grid_of
from workers.requests.parameters import InvalidRequest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports from a namespace that SciPy will remove
    import foolbox

Wrap = Callable[..., VisionModel]
CLASSES = 7


@pytest.fixture(scope="module")
def model(as_model: Wrap) -> VisionModel:
    """Small and without biases: each image has its own class, and flips somewhere on the grids below."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, bias=False),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 6 * 6, CLASSES, bias=False),
    )
    for parameter in network.parameters():
        nn.init.kaiming_normal_(parameter)
    return as_model(network, size=32, classes=CLASSES)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Six images on the 8-bit grid, with some pixels at the ends of the range."""
    levels = torch.randint(-30, 286, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0)).clamp(0, 255)
    return levels.float() / 255


@pytest.fixture(scope="module")
def classes(model: VisionModel, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        found = model(pixels).argmax(1)
    return found.clone()


def scan(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    reference: int,
    epsilons: list[float],
    *,
    targeted: bool = False,
) -> float | None:
    """Scan plainly: a forward and a backward pass for every epsilon, one image at a time."""
    for epsilon in [0.0, *epsilons]:
        x = image.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x[None]), torch.tensor([reference]))
        (gradient,) = torch.autograd.grad(-loss if targeted else loss, x)
        with torch.no_grad():
            predicted = int(model((image + epsilon * gradient.sign()).clamp(0, 1)[None]).argmax())
        if (predicted == reference) == targeted:
            return epsilon
    return None


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 0.03, 0.5])
def test_fgsm_is_foolboxs_and_torchattacks(
    model: VisionModel, pixels: Tensor, classes: Tensor, epsilon: float
) -> None:
    ours = fgsm(model, pixels, classes, epsilon)
    theirs, _, _ = foolbox.attacks.FGSM(random_start=False)(
        foolbox.PyTorchModel(model, bounds=(0, 1)), pixels, classes, epsilons=epsilon
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    torch.testing.assert_close(
        ours, torchattacks.FGSM(model, eps=epsilon)(pixels, classes), rtol=0, atol=1e-7
    )


def test_targeted_fgsm_is_torchattacks(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    wanted = (classes + 1) % CLASSES
    attack = torchattacks.FGSM(model, eps=0.02)
    attack.set_mode_targeted_by_label(quiet=True)
    torch.testing.assert_close(
        fgsm(model, pixels, wanted, 0.02, targeted=True), attack(pixels, wanted), rtol=0, atol=1e-7
    )


def test_pgd_from_the_image_is_torchattacks(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    theirs = torchattacks.PGD(model, eps=0.03, alpha=0.01, steps=5, random_start=False)(pixels, classes)
    ours = pgd(model, pixels, classes, 0.03, Pgd(steps=5, step_size=1 / 3, seed=None))
    # a pixel with a near-zero gradient may go either way once the images differ in the last digit
    assert (ours - theirs).abs().gt(1e-6).float().mean() < 1e-3


@pytest.mark.parametrize("seed", [None, 4])
def test_pgd_stays_in_its_box_and_is_the_stronger_attack(
    model: VisionModel, pixels: Tensor, classes: Tensor, seed: int | None
) -> None:
    epsilon = 0.01
    moved = pgd(model, pixels, classes, epsilon, Pgd(seed=seed))
    assert (moved - pixels).abs().max() <= epsilon + 1e-7
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved, pgd(model, pixels, classes, epsilon, Pgd(seed=seed)))
    assert torch.equal(pgd(model, pixels, classes, 0.0, Pgd(seed=seed)), pixels)

    def loss(images: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(images), classes)

    assert loss(moved) > loss(fgsm(model, pixels, classes, epsilon))


@hypothesis_settings(deadline=None, max_examples=25)
@given(epsilon=st.floats(0, 1), integer=st.booleans())
def test_a_step_is_at_most_epsilon_and_stays_in_range(epsilon: float, integer: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=generator).float() / 255
    sign = torch.randint(-1, 2, pixels.shape, generator=generator).float()
    before = pixels.clone()
    moved = perturbed(pixels, sign, epsilon, integer=integer)
    assert torch.equal(pixels, before)
    slack = 0.5 / 255 if integer else 0.0  # levels are rounded to the nearest
    assert (moved - pixels).abs().max() <= epsilon + slack + 1e-7
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved[sign == 0], pixels[sign == 0]), "sign(0) is 0"
    assert torch.equal(perturbed(pixels, sign, 0.0, integer=integer), pixels), "epsilon 0 is the identity"


def test_the_gradient_is_that_of_the_cross_entropy_in_float64(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    import copy

    exact = copy.deepcopy(model).double()
    x = pixels.double().requires_grad_()
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(exact(x), classes, reduction="sum"), x)
    found = loss_gradient(model, pixels, classes)
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_smallest_epsilon_is_that_of_a_plain_scan(
    model: VisionModel, pixels: Tensor, classes: Tensor, batch: int, targeted: bool
) -> None:
    grid = Grid(step=0.004, cap=0.2)
    wanted = (classes + 2) % CLASSES if targeted else classes
    found = smallest_epsilons(model, pixels, wanted, grid=grid, targeted=targeted, batch=batch)
    points = [i * 0.004 for i in range(1, 51)]
    expected = [
        scan(model, image, int(c), points, targeted=targeted) for image, c in zip(pixels, wanted, strict=True)
    ]
    assert [search.epsilon for search in found] == expected
    assert any(epsilon for epsilon in expected), "nothing was attacked"


def test_a_full_scan_reports_every_run_of_successes(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    grid = Grid(step=0.01, cap=0.5)
    quick = smallest_epsilons(model, pixels, classes, grid=grid)
    full = smallest_epsilons(model, pixels, classes, grid=grid, full_scan=True)
    direction = loss_gradient(model, pixels, classes).sign()
    for image, (one, other) in enumerate(zip(quick, full, strict=True)):
        assert one.epsilon == other.epsilon
        assert one.successes == ()
        assert [checked.epsilon for checked in other.checked] == [i * 0.01 for i in range(51)]
        with torch.inference_mode():
            predicted = [
                int(model((pixels[image] + i * 0.01 * direction[image]).clamp(0, 1)[None]).argmax())
                for i in range(51)
            ]
        assert [checked.predicted for checked in other.checked] == predicted
        inside = {i for i in range(51) for low, high in other.successes if low <= i * 0.01 <= high}
        assert inside == {i for i in range(51) if predicted[i] != int(classes[image])}


class Islands(nn.Module):
    """Class 1 where the mean lies in one of two intervals, so that success comes, goes and comes again."""

    def forward(self, x: Tensor) -> Tensor:
        mean = (x * 0.5 + 0.5).mean((1, 2, 3))
        inside = ((mean > 0.515) & (mean < 0.535)) | (mean > 0.58)
        score = torch.where(inside, 1.0, -1.0) + 0.001 * mean
        return torch.stack([-score, score], 1)


def test_success_that_comes_and_goes_is_found_where_it_comes_first(as_model: Wrap) -> None:
    """Bisection would return about 0.085: the trap of every bisection."""
    model = as_model(Islands(), size=8, classes=2)
    image = torch.full((1, 3, 8, 8), 0.5)
    (found,) = smallest_epsilons(model, image, grid=Grid(step=0.005, cap=0.1), full_scan=True)
    assert found.epsilon == pytest.approx(0.02)
    assert [tuple(round(end, 6) for end in run) for run in found.successes] == [(0.02, 0.03), (0.085, 0.1)]


def test_without_classes_each_attack_is_away_from_the_prediction(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    grid = Grid(step=0.01, cap=0.1)
    given = smallest_epsilons(model, pixels, classes, grid=grid)
    assert [found.checked for found in smallest_epsilons(model, pixels, grid=grid)] == [
        found.checked for found in given
    ]


def test_an_image_that_is_wrong_already_needs_no_epsilon(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    (found,) = smallest_epsilons(model, pixels[:1], (classes[:1] + 1) % CLASSES)
    assert (found.outcome, found.epsilon) == ("flipped", 0.0)
    assert found.after == found.before


class Constant(nn.Module):
    """Predicts class 1 for every input; its gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]) + 0 * x.sum((1, 2, 3))[:, None]


class Sure(nn.Module):
    """Predicts class 1 with a probability that is exactly 1 in float32."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, mean + 400], 1)


@pytest.mark.parametrize("network", [Constant, Sure])
def test_no_gradient_is_not_resistance(as_model: Wrap, network: type[nn.Module]) -> None:
    model = as_model(network(), size=8, classes=2)
    image = torch.rand(2, 3, 8, 8)
    for found in smallest_epsilons(model, image, grid=Grid(step=0.1, cap=0.5)):
        assert (found.outcome, found.epsilon, found.gradient_norm) == ("no_gradient", None, 0.0)
    assert torch.equal(fgsm(model, image, torch.tensor([1, 1]), 0.1), image)


def test_images_that_resist_up_to_the_cap_are_censored(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    found = smallest_epsilons(model, pixels, classes, grid=Grid(step=1e-6, cap=5e-6))
    assert {(search.outcome, search.epsilon, search.after) for search in found} == {("resisted", None, None)}
    assert all(search.gradient_norm > 0 and len(search.checked) == 6 for search in found)


def test_an_8_bit_attack_equals_its_png(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    grid = Grid(step=1 / 255, cap=40 / 255, integer=True)
    direction = loss_gradient(model, pixels, classes).sign()
    flipped = 0
    for image, found in enumerate(smallest_epsilons(model, pixels, classes, grid=grid)):
        if not found.epsilon:
            continue
        assert found.after is not None
        moved = perturbed(
            pixels[image : image + 1], direction[image : image + 1], found.epsilon, integer=True
        )
        levels = to_uint8(moved)[0].permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "PNG")
        again = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255
        assert torch.equal(again, moved)
        with torch.inference_mode():
            assert int(model(again).argmax()) == found.after.predicted != found.reference
        steps = np.abs(levels.astype(int) - to_uint8(pixels)[image].permute(1, 2, 0).numpy()).max()
        assert steps == round(found.epsilon * 255)
        flipped += 1
    assert flipped


def test_probabilities_are_the_softmax(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    with torch.inference_mode():
        expected = model(pixels).double().softmax(1)
    for image, found in enumerate(smallest_epsilons(model, pixels, classes, grid=Grid(step=0.01, cap=0.05))):
        assert found.before.probability == pytest.approx(float(expected[image].max()), rel=1e-6)
        assert found.before.reference_probability == pytest.approx(
            float(expected[image, classes[image]]), rel=1e-6
        )


def test_each_pass_reports_progress_and_can_be_stopped(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    told: list[tuple[int, float]] = []
    found = smallest_epsilons(
        model, pixels, classes, grid=Grid(step=0.01, cap=0.1),
        on_checked=lambda image, checked: told.append((image, checked.epsilon)), batch=4,
    )  # fmt: skip
    for image, search in enumerate(found):
        mine = [epsilon for which, epsilon in told if which == image]
        assert mine == sorted(mine)
        assert mine[-1] == search.checked[-1].epsilon

    def stop(_image: int, _checked: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smallest_epsilons(model, pixels, classes, on_checked=stop)


def test_a_grid_is_geometric_and_contains_its_cap() -> None:
    grid = Grid()
    assert (grid.first, grid.last) == (1, 500)
    assert grid.epsilon(500) == 0.5
    assert grid.epsilon(7) == 7 * 0.001
    assert Grid(step=0.1, cap=0.3).last == 3, "0.3 / 0.1 is 2.9999999999999996"
    assert Grid(step=0.1, cap=0.5, minimum=0.3).first == 3
    eight = Grid(step=2 / 255, cap=9 / 255, integer=True)
    assert [eight.epsilon(i) * 255 for i in range(1, eight.last + 1)] == pytest.approx([2, 4, 6, 8])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"step": 0.0}, "step: expected a number above 0"),
        ({"step": math.nan}, "step: expected a number above 0"),
        ({"cap": 1.5}, "cap: expected a number above 0 and at most 1, got 1.5"),
        ({"minimum": -0.1}, "minimum: expected a number from 0"),
        ({"step": 0.1, "cap": 0.05}, "cap: expected at least one step (0.1) above the minimum"),
        ({"step": 1e-6, "cap": 1.0}, "step: expected at most 10,000 points up to 1"),
        ({"integer": True}, "step: expected a multiple of 1/255"),
    ],
)
def test_a_grid_that_cannot_be_walked_is_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r".*") as refused:
        Grid(**wrong)  # type: ignore[arg-type]
    assert sentence in str(refused.value)


def test_classes_that_the_model_has_not_are_refused(model: VisionModel, pixels: Tensor) -> None:
    for wrong in (CLASSES, -1):
        with pytest.raises(InvalidRequest, match=f"class: expected one from 0 to {CLASSES - 1}, got {wrong}"):
            smallest_epsilons(model, pixels[:1], torch.tensor([wrong]))
    with pytest.raises(InvalidRequest, match="target: expected a target class, got none"):
        smallest_epsilons(model, pixels, targeted=True)
    with pytest.raises(InvalidRequest, match="epsilon: expected a number from 0 to 1, got 2"):
        fgsm(model, pixels[:1], torch.tensor([0]), 2.0)


def test_nothing_of_the_callers_is_changed(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    before = pixels.clone(), classes.clone()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    smallest_epsilons(model, pixels, classes, grid=Grid(step=0.05, cap=0.5), full_scan=True)
    pgd(model, pixels, classes, 0.1, Pgd(steps=2))
    assert torch.equal(before[0], pixels)
    assert torch.equal(before[1], classes)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("targeted", [False, True])
def test_each_image_goes_there_and_back_once_however_long_its_grid(
    as_model: Wrap, model: VisionModel, pixels: Tensor, classes: Tensor, targeted: bool
) -> None:
    """FGSM's gradient does not depend on epsilon: one backward pass, then forward passes without a graph."""
    images = {"with a graph": 0, "without": 0, "back": 0}

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            images["with a graph" if x.requires_grad else "without"] += len(x)
            if x.requires_grad:
                x.register_hook(lambda gradient: images.__setitem__("back", images["back"] + len(gradient)))
            logits: Tensor = model.network(x)
            return logits

    counted = as_model(Counting(), size=32, classes=CLASSES)
    chunk_size(counted, pixels)  # measures a graph, once per model
    images.update(dict.fromkeys(images, 0))
    aims = (classes + 1) % CLASSES if targeted else classes
    grid = Grid(step=0.01, cap=0.3)
    found = smallest_epsilons(counted, pixels, aims, grid=grid, targeted=targeted, full_scan=True)
    assert [len(search.checked) for search in found] == [31] * len(pixels)
    assert images == {
        "with a graph": len(pixels),
        "back": len(pixels),
        "without": 30 * len(pixels),
    }


# Smallest epsilons of 24 photos for EfficientNet-Lite0, on the default grid (tests/bench/bench_attacks.py).
FALLS = (
    0.0041, 0.0006, 0.0007, 0.2752, 0.0013, 0.0002, 0.0009, 0.0007, 0.001, 0.2397, 0.0055, 0.0016, 0.0004, 0.0037,
    0.1574, 0.0002, 0.0008, 0.001, 0.0007, 0.0008, 0.0002, 0.0419, 0.0008, 0.0003,
)  # fmt: skip


def test_the_default_search_costs_less_than_steps_of_a_thousandth(as_model: Wrap) -> None:
    """Counts images and forward passes, neither of which depends on the machine's load."""

    class Falls(nn.Module):
        """Class 1 once epsilon reaches `epsilon`: the mean shift decides."""

        epsilon = 0.0

        def forward(self, x: Tensor) -> Tensor:
            spent["images"] += len(x)
            spent["passes"] += 1
            raised = (x * counted.std + counted.mean).mean((1, 2, 3)) - 0.5
            return torch.stack([torch.zeros_like(raised), 100 * (raised - self.epsilon)], 1)

    spent = {"images": 0, "passes": 0}
    network = Falls()
    counted = as_model(network, size=4, classes=2)
    image = torch.full((1, 3, 4, 4), 0.5)
    totals = []
    for grid in (GeometricGrid(), Grid()):
        spent.update(images=0, passes=0)
        for epsilon in FALLS:
            network.epsilon = epsilon
            (found,) = smallest_epsilons(counted, image, grid=grid)
            assert found.epsilon is not None
            assert (
                epsilon * (1 - 1e-4)
                <= found.epsilon
                <= epsilon + (0.001 if grid == Grid() else max(START, epsilon / 16))
            )
        totals.append(dict(spent))
    geometric, linear = totals
    assert geometric["images"] < linear["images"]
    assert geometric["passes"] < linear["passes"]


def test_fifty_photos_match_a_plain_scan(photographs: list[tuple[Image.Image, str]]) -> None:
    """EfficientNet-Lite0 with its real weights; both searches stop at 0.006."""
    model = load_model("efficientnet-lite0")
    pictures = [torch.from_numpy(model.preprocessing(picture).copy()) for picture, _ in photographs[:50]]
    pixels = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
    found: list[Search] = smallest_epsilons(model, pixels, grid=Grid(step=0.001, cap=0.006))
    points = [i * 0.001 for i in range(1, 7)]
    for image, search in zip(pixels, found, strict=True):
        assert search.epsilon == scan(model, image, search.reference, points)
    assert {search.outcome for search in found} == {"flipped", "resisted"}


def test_the_attacked_image_is_the_one_that_the_verdict_is_of(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    outcomes = set()
    for integer, cap in ((False, 1e-4), (False, 0.1), (True, 40 / 255)):
        grid = Grid(step=1 / 255 if integer else cap / 5, cap=cap, integer=integer)
        for image, found in enumerate(smallest_epsilons(model, pixels, classes, grid=grid)):
            outcomes.add(found.outcome)
            assert found.attacked is not None
            assert found.shown is not None
            again = perturbed(pixels[image], found.direction.float(), found.shown.epsilon, integer=integer)
            assert torch.equal(again, found.attacked), "it can be made again from the signs"
            with torch.inference_mode():
                probabilities = model(found.attacked[None]).double().softmax(1)[0]
            assert int(probabilities.argmax()) == found.shown.predicted
            assert found.shown.probability == pytest.approx(float(probabilities.max()), rel=1e-5)
            expected = probabilities.topk(5)
            assert [index for index, _ in found.shown.top] == expected.indices.tolist()
            assert [p for _, p in found.shown.top] == pytest.approx(expected.values.tolist(), rel=1e-4)
    assert outcomes == {"flipped", "resisted"}, "the grids are to show both"


def test_the_smallest_epsilon_by_pgd_is_that_of_a_plain_scan(
    model: VisionModel, pixels: Tensor, classes: Tensor
) -> None:
    grid, how = Grid(step=0.002, cap=0.02), Pgd(steps=4, seed=1)
    for image, found in enumerate(smallest_epsilons(model, pixels, classes, grid=grid, perturb=how)):
        expected = None
        for i in range(grid.first, grid.last + 1):
            moved = pgd(model, pixels[image : image + 1], classes[image : image + 1], grid.epsilon(i), how)
            with torch.inference_mode():
                if int(model(moved).argmax()) != int(classes[image]):
                    expected = grid.epsilon(i)
                    assert found.attacked is not None
                    assert torch.allclose(found.attacked, moved[0], atol=1e-6)
                    break
        assert found.epsilon == expected


def test_pgd_on_8_bits_stays_in_its_box(model: VisionModel, pixels: Tensor, classes: Tensor) -> None:
    moved = pgd(model, pixels, classes, 4 / 255, integer=True) * 255
    assert torch.allclose(moved, moved.round(), atol=1e-4)
    assert (moved - pixels * 255).abs().max() < 4.001


def test_a_request_has_exactly_the_parameters_of_its_mode() -> None:
    smallest = parse_attack("fgsm", {})
    assert smallest == {
        "mode": "smallest", "grid": "geometric", "ratio": 1.5, "parts": 8, "cap": 0.5, "minimum": 0.0,
        "levels": "real", "scan": "first",
    }  # fmt: skip
    assert grid_of(smallest) == GeometricGrid()
    told = next(option.help for option in convscope.attack.params if option.name == "grid")  # type: ignore[attr-defined]
    assert "by a factor of 1.5" in told
    assert "in 8 parts" in told
    linear = parse_attack("fgsm", {"step": 0.001})
    assert linear == {
        "mode": "smallest", "grid": "linear", "step": 0.001, "cap": 0.5, "minimum": 0.0, "levels": "real",
        "scan": "first",
    }, "a step alone asks for the linear grid, as before there was another"  # fmt: skip
    assert linear == parse_attack("fgsm", {"grid": "linear"})
    grid = grid_of(linear)
    assert isinstance(grid, Grid)
    assert grid_of({name: value for name, value in linear.items() if name != "grid"}) == grid, "an older row"
    assert (grid.first, grid.last, grid.epsilon(500)) == (1, 500, 0.5)
    fixed = parse_attack("fgsm", {"mode": "fixed", "epsilon": "0.03"})
    assert fixed == {"mode": "fixed", "epsilon": 0.03, "levels": "real"}
    assert grid_of(fixed).points == (0.03,)
    bits = parse_attack("fgsm", {"levels": "8-bit"})
    assert bits["grid"] == "linear"
    for complete in (smallest, linear, fixed, bits):
        assert parse_attack("fgsm", complete) == complete, "what a page sends back is the same request"
    assert (bits["step"], bits["cap"]) == (1 / 255, 127 / 255), "the cap is never passed"
    assert parse_attack("fgsm", {"levels": "8-bit", "mode": "fixed", "epsilon": 0.03})["epsilon"] == 8 / 255
    assert {"steps", "step_size", "seed"} <= parse_attack("pgd", {}).keys()
    assert set(ATTACKS) == {"fgsm", "pgd"}


@pytest.mark.parametrize(
    ("method", "given", "sentence"),
    [
        ("deepfool", {}, "method: expected one of fgsm, pgd, got 'deepfool'"),
        ("fgsm", {"steps": 3}, "fgsm has no parameter 'steps'"),
        ("fgsm", {"step": 0}, "step: expected a number above 0 and at most 1, got 0"),
        ("fgsm", {"cap": 1.5}, "cap: expected a number from 0 to 1, got 1.5"),
        ("fgsm", {"step": 0.00001}, "step: expected at most 10,000 points"),
        ("fgsm", {"cap": 0.001, "step": 0.01}, "cap: expected at least one step"),
        ("fgsm", {"mode": "fixed", "epsilon": 0}, "epsilon: expected a number above 0, got 0"),
        ("fgsm", {"mode": "fixed", "epsilon": 0.001, "levels": "8-bit"}, "epsilon: expected 1/255 or more"),
        ("fgsm", {"mode": "fixed", "cap": 0.1}, "cap: not used where mode is fixed"),
        ("fgsm", {"mode": "fixed", "grid": "linear"}, "grid: not used where mode is fixed"),
        ("fgsm", {"grid": "geometric", "step": 0.01}, "step: not used where grid is geometric"),
        ("fgsm", {"step": 0.01, "ratio": 1.1}, "ratio: not used where grid is linear"),
        ("fgsm", {"levels": "8-bit", "grid": "geometric"}, "grid: expected linear where levels is 8-bit"),
        (
            "fgsm",
            {"cap": 0.0001},
            "cap: expected a number from 0.000245098 (1/4080) to 1 on a geometric grid",
        ),
        ("fgsm", {"minimum": 0.4, "cap": 0.3}, "minimum: expected a number from 0 to the cap, got 0.4"),
        ("fgsm", {"ratio": 1}, "ratio: expected a number from 1.001 to 10, got 1"),
        ("fgsm", {"epsilon": 0.2}, "epsilon: not used where mode is smallest"),
        ("fgsm", {"epsilon": "much"}, "epsilon: expected a number from 0 to 1, got 'much'"),
    ],
)
def test_a_wrong_request_is_named(method: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(sentence)):
        parse_attack(method, given)


def stated_points(grid: GeometricGrid) -> list[float]:
    """Return the grid as documented, one product after another."""
    found, epsilon = [], Fraction(1, 4080)
    while float(epsilon) < grid.cap * (1 - 1e-9):
        found.append(float(epsilon))
        epsilon *= Fraction(str(grid.ratio))
    return [epsilon for epsilon in found if epsilon >= grid.minimum * (1 - 1e-9)] + [grid.cap]


def ascending_scan(grid: GeometricGrid, succeeds: Callable[[float], bool]) -> tuple[float | None, float]:
    """Scan the stated points by brute force; return the first success (None: resisted) and the failure below it."""
    failed = 0.0
    for epsilon in stated_points(grid):
        if succeeds(epsilon):
            if failed == 0:
                return epsilon, 0.0
            for part in range(1, grid.parts):
                between = failed + (epsilon - failed) * part / grid.parts
                if succeeds(between):
                    return between, failed + (epsilon - failed) * (part - 1) / grid.parts
            return epsilon, failed + (epsilon - failed) * (grid.parts - 1) / grid.parts
        failed = epsilon
    return None, failed


class Steps(nn.Module):
    """Class 1 where the mean's distance from 0.5 lies in one of the intervals; its gradient points up everywhere."""

    def __init__(self, stretches: list[tuple[float, float]]) -> None:
        super().__init__()
        self.stretches = stretches

    def inside(self, distance: float) -> bool:
        return any(low <= distance < high for low, high in self.stretches)

    def forward(self, x: Tensor) -> Tensor:
        mean = (x.double() * 0.5 + 0.5).mean((1, 2, 3))
        # the nearest float32 to 0.5 + epsilon is off by up to 3e-8: no interval ends that close to an epsilon
        inside = torch.tensor([self.inside(float(value) - 0.5) for value in mean.detach()])
        score = torch.where(inside, 1.0, -1.0) + 0.001 * mean
        return torch.stack([score * 0, score], 1).float()


@hypothesis_settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(
    ends=st.lists(st.integers(1, 4000), min_size=0, max_size=8, unique=True),
    ratio=st.sampled_from([1.1, 1.2, 1.5, 3.0]),
    parts=st.sampled_from([1, 2, 7, 16]),
    cap=st.sampled_from([0.01, 0.1, 0.4]),
    minimum=st.sampled_from([0.0, 0.003]),
    batch=st.sampled_from([1, 5, 16]),
)
def test_the_result_is_the_ascending_scan_of_the_stated_points(
    as_model: Wrap, ends: list[int], ratio: float, parts: int, cap: float, minimum: float, batch: int
) -> None:
    """Success comes and goes arbitrarily: log-spaced intervals from 1e-4 to 0.5."""
    places = sorted(1e-4 * 5000 ** ((end + 0.123456789) / 4001) for end in ends)
    network = Steps(list(zip(places[::2], places[1::2], strict=False)))
    grid = GeometricGrid(ratio=ratio, parts=parts, cap=cap, minimum=minimum)
    assert grid.points == pytest.approx(stated_points(grid), rel=1e-12)
    model = as_model(network, size=4, classes=2)
    for full in (False, True):
        (found,) = smallest_epsilons(
            model, torch.full((1, 3, 4, 4), 0.5), grid=grid, full_scan=full, batch=batch
        )
        epsilon, failed = ascending_scan(grid, network.inside)
        near = [
            abs(place - point) for place in places for point in [checked.epsilon for checked in found.checked]
        ]
        assume(min(near, default=1) > 1e-6)
        assert found.epsilon == (None if epsilon is None else pytest.approx(epsilon, rel=1e-12))
        assert found.last_failure == pytest.approx(failed, rel=1e-12)
        assert found.at_most == (epsilon == grid.points[0] or (epsilon is not None and failed == 0))
        assert found.outcome == ("resisted" if epsilon is None else "flipped")
        looked = [checked.epsilon for checked in found.checked]
        assert looked == sorted(set(looked))
        assert set(grid.points) <= set(looked) or not full
        assert found.attacked is not None
        reached = found.epsilon if found.epsilon is not None else cap
        assert float((found.attacked - 0.5).mean()) == pytest.approx(reached, abs=1e-6)
        if full:
            assert (found.successes[0][0] if found.successes else None) == found.epsilon
            for checked in found.checked:
                inside = any(low <= checked.epsilon <= high for low, high in found.successes)
                assert inside == network.inside(checked.epsilon)


def test_a_geometric_grid_begins_at_a_sixteenth_of_a_level_and_ends_at_its_cap() -> None:
    grid = GeometricGrid(cap=0.5)
    points = grid.points
    assert points[0] == START == 1 / 4080
    assert points[-1] == 0.5
    assert all(one < other <= one * 1.5 * (1 + 1e-12) for one, other in itertools.pairwise(points))
    assert len(points) == 20
    assert GeometricGrid(cap=START).points == (START,)
    for number, epsilon in enumerate((0.0, *points)):
        assert (grid.number(epsilon), grid.at(number)) == (number, epsilon)
    gap = grid.between(points[3], points[4])
    assert [grid.at(float(np.float32(grid.number(epsilon)))) for epsilon in gap] == list(gap)
    assert len(gap) == 7
    assert (points[4] - gap[-1]) / points[4] == pytest.approx(0.5 / 1.5 / 8), "4 % of epsilon"


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("how", [None, Pgd(steps=3, seed=2)])
def test_the_default_search_is_a_plain_scan_of_its_grid(
    model: VisionModel, pixels: Tensor, classes: Tensor, how: Pgd | None, targeted: bool
) -> None:
    """FGSM recomputed with autograd at each epsilon, PGD by `pgd`; at the epsilon found, FGSM equals Foolbox's."""
    grid = GeometricGrid(cap=0.3)
    wanted = (classes + 2) % CLASSES if targeted else classes
    finds = smallest_epsilons(model, pixels, wanted, grid=grid, perturb=how, targeted=targeted)
    attack = foolbox.attacks.FGSM(random_start=False)
    for at, found in enumerate(finds):
        image, reference = pixels[at], wanted[at]

        def succeeds(epsilon: float, image: Tensor = image, reference: Tensor = reference) -> bool:
            if how is None:
                return scan(model, image, int(reference), [epsilon], targeted=targeted) == epsilon
            moved = pgd(model, image[None], reference[None], epsilon, how, targeted=targeted)
            with torch.inference_mode():
                return (int(model(moved).argmax()) == int(reference)) == targeted

        epsilon, failed = ascending_scan(grid, succeeds)
        assert found.epsilon == (None if epsilon is None else pytest.approx(epsilon, rel=1e-12))
        assert found.last_failure == pytest.approx(failed, rel=1e-12)
        if how is None and not targeted and epsilon is not None:
            moved, _, fooled = attack(
                foolbox.PyTorchModel(model, bounds=(0, 1)),
                image[None],
                reference[None],
                epsilons=found.epsilon,
            )
            assert bool(fooled)
            assert found.attacked is not None
            assert (found.attacked - moved[0]).abs().max() <= 1e-7


def test_the_lowest_epsilon_is_an_upper_bound_but_for_one_whole_level(as_model: Wrap) -> None:
    network = Steps([(1e-6, 1.0)])
    model, image = as_model(network, size=4, classes=2), torch.full((1, 3, 4, 4), 128 / 255)
    network.stretches = [(128 / 255 - 0.5 + 1e-6, 1.0)]

    def at_most(grid: Grid | GeometricGrid) -> bool:
        (found,) = smallest_epsilons(model, image, grid=grid)
        assert (found.epsilon, found.last_failure) == (pytest.approx(grid.points[0]), 0.0)
        return found.at_most

    assert at_most(GeometricGrid())
    assert at_most(Grid())
    assert at_most(Grid(step=0.03, cap=0.03, minimum=0.03)), "a fixed epsilon"
    assert at_most(Grid(step=2 / 255, cap=0.5 // (2 / 255) * 2 / 255, integer=True))
    assert not at_most(Grid(step=1 / 255, cap=10 / 255, integer=True)), (
        "whole levels have nothing below 1/255"
    )
