"""Image classifiers in the Hugging Face layout: `config.json`, `model.safetensors`, `preprocessor_config.json`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from workers.networks import LoadedNetwork, WrongWeights, first_line
from workers.preprocessing import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Interpolation, Preprocessing
from workers.torchvision_import import import_library
from workers.vocabularies import vocabulary_of_labels

# A pipeline in NumPy and one in Pillow may round one or two levels of 255 apart.
_SAME_LEVELS = 2.0


def load_huggingface(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    """The classifier that `save_pretrained` wrote to `folder`, or that the hub's repository holds.

    Raises:
        WrongWeights: the folder holds no image classifier, or its weights do not fill it.
    """
    transformers = import_library("transformers")
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            network, info = transformers.AutoModelForImageClassification.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # a configuration with a wrong value raises whatever that leads to
            raise WrongWeights(
                f"expected an image classifier in {folder}, got: {first_line(error)}"
            ) from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise WrongWeights(
            f"expected the weights of {type(network).__name__} in {folder}, got none for {len(missing)} of its tensors "
            f"({missing[0]}{', ...' if len(missing) > 1 else ''})"
        )
    _check_problem(config.problem_type, folder)
    labels = [config.id2label[index] for index in range(len(config.id2label))]
    preprocessing, note, reverse = _preprocessing(folder, config)
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=type(network).__name__,
        preprocessing=preprocessing,
        vocabulary=vocabulary_of_labels(labels, model=name),
        preprocessing_note=note,
        reverse_channels=reverse,
    )


def _check_problem(problem: str | None, folder: Path) -> None:
    """Refuse heads whose numbers are not the logits of classes that exclude each other."""
    kinds = {
        "multi_label_classification": "a multi-label classifier, whose logits have a sigmoid each",
        "regression": "a regression, whose numbers are no classes",
    }
    if problem in kinds:
        raise WrongWeights(
            f"expected a classifier with one class per image in {folder}, got {kinds[problem]} "
            f"(problem_type {problem!r} in config.json)"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice on stderr: what matters is checked and said by us."""
    logging = import_library("transformers.utils.logging")
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _preprocessing(folder: Path, config: Any) -> tuple[Preprocessing, str | None, bool]:
    """(preprocessing, note, whether channels are reversed)."""
    if not (folder / "preprocessor_config.json").exists():
        return _assumed(config)
    with _quiet():
        try:
            # Pillow's resize is what the weights were evaluated with, and what we do.
            processor = import_library("transformers").AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, backend="pil"
            )
            return preprocessing_of_processor(processor)
        except WrongWeights:
            raise
        except Exception as error:  # as above
            path = folder / "preprocessor_config.json"
            raise WrongWeights(f"expected an image processor in {path}, got: {first_line(error)}") from error


def _assumed(config: Any) -> tuple[Preprocessing, str, bool]:
    """What most ImageNet classifiers of the hub use; said aloud, because it may be wrong for these weights."""
    size = getattr(config, "image_size", None) or 224
    try:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        preprocessing = Preprocessing(
            input_size=(height, width),
            resize=int(min(height, width) / 0.875),
            interpolation="bicubic",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            crop_rounding="down",
        )
    except (TypeError, ValueError) as error:
        raise WrongWeights(f"expected image_size as one or two numbers of pixels, got {size!r}") from error
    note = (
        "the folder has no preprocessor_config.json: assumed are a bicubic resize to "
        f"{preprocessing.resize}, a centre crop of {height} x {width}, and ImageNet's mean and std"
    )
    return preprocessing, note, False


def preprocessing_of_processor(processor: Any) -> tuple[Preprocessing, str | None, bool]:
    """What `processor` does to a picture, read from its settings and checked by running it.

    Mean and std come from running it on a black and a white picture, so that rescaling, offsets and double
    normalisation are all in them. The resize is the candidate that reproduces the processor's own output.

    Raises:
        WrongWeights: the processor's output is no 3-channel picture of one fixed size.
    """
    black, white, red = (_run(processor, _plain(colour)) for colour in ((0, 0, 0), (255,) * 3, (255, 0, 0)))
    probe = _probe()
    theirs = _run(processor, probe)
    if theirs.shape != black.shape or theirs.shape[0] != 3:
        raise WrongWeights(
            f"expected pictures of one size from {type(processor).__name__}, got {black.shape} and {theirs.shape}"
        )
    height, width = theirs.shape[1:]
    low, high = black[:, height // 2, width // 2], white[:, height // 2, width // 2]
    std = 1 / (high - low)
    mean = -low * std
    reverse = bool(red[2, height // 2, width // 2] > red[0, height // 2, width // 2])
    if reverse:
        mean, std, theirs = mean[::-1], std[::-1], theirs[::-1]
    levels = (theirs * std[:, None, None] + mean[:, None, None]).transpose(1, 2, 0) * 255

    red_mean, green_mean, blue_mean = (round(float(value), 6) for value in mean)
    red_std, green_std, blue_std = (round(float(value), 6) for value in std)
    best, best_difference = None, np.inf
    for resize in _resizes(processor, height, width):
        candidate = Preprocessing(
            input_size=(height, width),
            resize=resize,
            interpolation=_interpolation(processor),
            mean=(red_mean, green_mean, blue_mean),
            std=(red_std, green_std, blue_std),
            crop_rounding="down",
        )
        difference = float(np.abs(candidate(probe).astype(np.float64) - levels).mean())
        if difference < best_difference:
            best, best_difference = candidate, difference
    assert best is not None
    if best_difference <= _SAME_LEVELS:
        return best, None, reverse
    note = (
        f"{type(processor).__name__} is only approximated: on a test picture the result differs from its own by "
        f"{best_difference:.1f} of 255 levels on average"
    )
    return best, note, reverse


def _resizes(processor: Any, height: int, width: int) -> list[int | tuple[int, int]]:
    """Every resize that some processor of the library makes from settings like these."""
    size = processor.size
    settings = dict(size) if size is not None else {}
    short = settings.get("shortest_edge") or min(
        settings.get("height") or height, settings.get("width") or width
    )
    ratio = getattr(processor, "crop_pct", None) or 224 / 256
    exact = (settings.get("height") or short, settings.get("width") or short)
    sizes: list[int | tuple[int, int]] = [(height, width), exact, short, min(height, width)]
    sizes += [int(short / ratio), int(256 / 224 * short)]
    return list(dict.fromkeys(sizes))


def _interpolation(processor: Any) -> Interpolation:
    resample = getattr(processor, "resample", None)
    for name, value in INTERPOLATIONS.items():
        if resample is not None and int(resample) == int(value):
            return name
    return "bilinear"


def _run(processor: Any, image: Image.Image) -> npt.NDArray[np.float64]:
    """3,H,W as the processor hands it to a network."""
    pixels = processor(images=image, return_tensors="np")["pixel_values"]
    return np.asarray(pixels[0], dtype=np.float64)


def _plain(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGB", (512, 512), colour)


def _probe() -> Image.Image:
    """A picture with coarse and fine structure and uneven sides, so that any other resize gives another result."""
    y, x = np.mgrid[0:509, 0:643]
    waves = [np.sin(x / period + phase) * np.cos(y / period) for period, phase in ((31, 0), (17, 1), (9, 2))]
    pixels = np.stack([(wave + 1) * 127.5 for wave in waves], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))
