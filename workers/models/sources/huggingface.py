"""Image classifiers in the Hugging Face layout: `config.json`, `model.safetensors`, `preprocessor_config.json`."""

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from workers.models.checkpoints import checked_folder, read_checkpoint, read_json
from workers.models.networks import LoadedNetwork, WrongWeights, check_problem, first_line
from workers.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    Fit,
    Interpolation,
    Preprocessing,
)
from workers.models.vocabularies import vocabulary_of_labels
from workers.torchvision_import import import_library

# A pipeline in NumPy and one in Pillow may differ by one or two 8-bit levels through rounding.
_SAME_LEVELS = 2.0
_MAX_CLASSES = 100_000


def load_huggingface(folder: Path, *, name: str, source: str) -> LoadedNetwork:
    """The classifier that `save_pretrained` wrote to `folder`, or that was downloaded from the hub.

    Custom code in the folder (`auto_map`) is never run, and the user is not prompted for it.

    Raises:
        WrongWeights: the folder contains no image classifier, or its weights do not fill it.
    """
    transformers = import_library("transformers")
    path = folder / "config.json"
    settings = read_json(path)
    notes = _check_settings(settings, path)
    checked_folder(folder)
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # an invalid value raises whatever it leads to
            raise WrongWeights(
                f"expected an image classifier in {folder}, got a config.json that does not fit: {first_line(error)}"
            ) from error
    check_problem(config.problem_type, folder)
    labels, network, notes = _named_and_filled(
        folder, config, _label_lists(settings.get("id2label"), path), notes
    )
    if labels is None:
        labels = [config.id2label[index] for index in range(len(config.id2label))]
    named = "id2label of" if "id2label" in settings else "numbers: no id2label in"
    preprocessing, note, reverse = _preprocessing(folder, config)
    preprocessing, conflict, told = _of_a_size_that_fits(network, config, preprocessing)
    processor = folder / "preprocessor_config.json"
    return LoadedNetwork(
        network=network,
        source=source,
        architecture=type(network).__name__,
        preprocessing=preprocessing,
        vocabulary=vocabulary_of_labels(labels, model=name),
        preprocessing_note="; ".join(filter(None, (note, conflict))) or None,
        reverse_channels=reverse,
        preprocessing_source=str(processor) if processor.exists() else f"assumed, {processor} does not exist",
        vocabulary_source=f"{named} {path}",
        notes=(*notes, *told),
    )


def _check_settings(settings: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Notes about a `config.json`.

    Raises:
        WrongWeights: transformers has no image classifier of this kind, or it needs something unsupported.
    """
    auto = import_library("transformers.models.auto")
    kind, code = settings.get("model_type"), settings.get("auto_map")
    if not isinstance(kind, str) or kind not in auto.CONFIG_MAPPING:
        if code:
            named = next(iter(code.values())) if isinstance(code, dict) and code else code
            raise WrongWeights(
                f"expected a model_type that transformers knows in {path}, got {kind!r} with custom code "
                f"(auto_map: {named}): Convscope never runs code from a model's folder"
            )
        if kind is None:
            raise WrongWeights(
                f"expected model_type (transformers) or architecture and pretrained_cfg (timm) in {path}, got neither"
            )
        raise WrongWeights(
            f"expected a model_type that transformers {import_library('transformers').__version__} knows in {path}, "
            f"got {kind!r}{_near(str(kind), list(auto.CONFIG_MAPPING))}"
        )
    if kind not in auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise WrongWeights(
            f"expected an image classifier in {path}, got model_type {kind!r}, for which transformers has none"
        )
    quantized = settings.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise WrongWeights(
            f"expected weights in float32, float16 or bfloat16 next to {path}, got quantized ones "
            f"(quantization_config: {method}): save the network dequantized"
        )
    channels = settings.get("num_channels", 3)
    if channels not in (1, 3):
        raise WrongWeights(f"expected num_channels 3 (RGB) or 1 (gray) in {path}, got {channels!r}")
    if code:
        return (
            f"{path} names custom code (auto_map), which is never run: transformers' own {kind} was loaded",
        )
    return ()


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f": similar names are {', '.join(near)}" if near else ""


def _label_lists(id2label: Any, path: Path) -> list[tuple[list[str] | None, tuple[str, ...]]]:
    """Ways to read `id2label`, likeliest first, each with notes: labels in logit order, or None to use it as it is.

    Raises:
        WrongWeights: its keys are not numbers.
    """
    if not isinstance(id2label, dict) or not id2label:
        return [(None, ())]
    try:
        labels = {int(key): str(label) for key, label in id2label.items()}
    except ValueError:
        raise WrongWeights(
            f"expected logit numbers as keys of id2label in {path}, got {next(iter(id2label))!r}"
        ) from None
    if min(labels) < 0:
        raise WrongWeights(f"expected keys of id2label from 0 up in {path}, got {min(labels)}")
    if set(labels) == set(range(len(labels))):
        return [(None, ())]
    if max(labels) > _MAX_CLASSES:
        raise WrongWeights(f"expected keys of id2label up to {_MAX_CLASSES} in {path}, got {max(labels)}")
    absent = [index for index in range(max(labels)) if index not in labels]
    gaps = (
        [labels.get(index, f"class {index}") for index in range(max(labels) + 1)],
        (
            f"id2label of {path} does not name class "
            f"{', '.join(map(str, absent[:5]))}{', ...' if len(absent) > 5 else ''}"
            f": shown by number",
        ),
    )
    if sorted(labels) == list(range(1, len(labels) + 1)):
        first = (
            [labels[index] for index in sorted(labels)],
            (f"id2label of {path} counts from 1: class 1 is logit 0",),
        )
        return [first, gaps]
    return [gaps]


def _named_and_filled(
    folder: Path,
    config: Any,
    candidates: list[tuple[list[str] | None, tuple[str, ...]]],
    notes: tuple[str, ...],
) -> tuple[list[str] | None, Any, tuple[str, ...]]:
    """(labels, network, notes) of the first reading of the labels for which the weights fill the network.

    Raises:
        WrongWeights: there is none; the message is the first one's.
    """
    faults: list[str] = []
    for labels, told in candidates:
        if labels is not None:
            config.id2label = dict(enumerate(labels))
        network, fault, more = _network(folder, config)
        if network is not None:
            return labels, network, (*notes, *told, *more)
        faults.append(fault)
    raise WrongWeights(faults[0])


def _network(folder: Path, config: Any) -> tuple[Any, str, tuple[str, ...]]:
    """(network, "", notes), or (None, why its weights do not fill it, ()).

    Raises:
        WrongWeights: the weights cannot be read.
    """
    transformers = import_library("transformers")
    with _quiet():
        try:
            network, info = transformers.AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # all of them are reported below
            )
        except Exception as error:  # as above
            for file in sorted(folder.iterdir()):
                if file.suffix in (".safetensors", ".bin"):
                    read_checkpoint(file)
            raise WrongWeights(
                f"expected an image classifier in {folder}, got: {first_line(error)}"
            ) from error
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        got = f"none for {_some(missing)}"
        if info["unexpected_keys"]:
            got += f" and {_some(sorted(info['unexpected_keys']))} that the model lacks"
        return None, _unfilled(network, folder, got), ()
    misshapen = sorted(info["mismatched_keys"], key=str)
    if misshapen:
        key, found, wanted = misshapen[0] if isinstance(misshapen[0], tuple) else (misshapen[0], None, None)
        shapes = f"{key} {tuple(found)} for {tuple(wanted)}" if found is not None else str(key)
        return None, _unfilled(network, folder, f"{len(misshapen)} of another shape ({shapes})"), ()
    unused = sorted(str(key) for key in info["unexpected_keys"])
    if not unused:
        return network, "", ()
    note = f"{_some(unused)} in {folder} do not belong to {type(network).__name__} and were not used"
    return network, "", (note,)


def _unfilled(network: Any, folder: Path, got: str) -> str:
    return f"expected the weights of {type(network).__name__} in {folder}, got {got}"


def _some(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({names[0]}{', ...' if len(names) > 1 else ''})"


def _of_a_size_that_fits(
    network: Any, config: Any, preprocessing: Preprocessing
) -> tuple[Preprocessing, str | None, tuple[str, ...]]:
    """(preprocessing, how it differs from the processor's, notes), with an input size that the network accepts.

    The processor's input size if the network accepts it, else the network's own.
    """
    size = getattr(config, "image_size", None)
    sizes = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else None
    if sizes is None or len(sizes) != 2 or sizes == preprocessing.input_size:
        return preprocessing, None, ()
    height, width = preprocessing.input_size
    told = (
        f"config.json states image_size {sizes[0]} x {sizes[1]} and the image processor produces "
        f"{height} x {width}: "
    )
    if _takes(network, preprocessing):
        return preprocessing, None, (f"{told}the network accepts both and gets {height} x {width}",)
    scale = (sizes[0] / height, sizes[1] / width)
    resize = preprocessing.resize
    scaled = replace(
        preprocessing,
        input_size=sizes,
        resize=round(resize * min(scale))
        if isinstance(resize, int)
        else (round(resize[0] * scale[0]), round(resize[1] * scale[1])),
    )
    if not _takes(network, scaled):
        return preprocessing, None, ()
    return scaled, f"{told}the network takes {sizes[0]} x {sizes[1]} only and gets it", ()


def _takes(network: Any, preprocessing: Preprocessing) -> bool:
    """Whether a forward pass of that size succeeds."""
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, preprocessing.channels, *preprocessing.input_size))
    except Exception:  # the error depends on where in the network's code the size fails
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the library's progress bars and advice on stderr: we check and report what matters."""
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
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return _assumed(config)
    _check_processor(read_json(path), path)
    with _quiet():
        try:
            # Pillow's resize is what the weights were evaluated with, and what we use.
            processor = import_library("transformers").AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, backend="pil", config=config, trust_remote_code=False
            )
            return preprocessing_of_processor(processor, channels=_channels(config))
        except WrongWeights:
            raise
        except Exception as error:  # as above
            raise WrongWeights(f"expected an image processor in {path}, got: {first_line(error)}") from error


def _check_processor(settings: dict[str, Any], path: Path) -> None:
    """Reject a processor that transformers lacks: it would silently use the network's default one instead."""
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    known = isinstance(kind, str) and any(
        hasattr(import_library("transformers"), name)
        for name in (kind, kind.removesuffix("Fast"), kind.replace("FeatureExtractor", "ImageProcessor"))
    )
    if settings.get("auto_map") and not known:
        raise WrongWeights(
            f"expected an image_processor_type that transformers knows in {path}, got {kind!r} with "
            "custom code (auto_map): Convscope never runs code from a model's folder"
        )
    if kind is not None and not known:
        raise WrongWeights(
            f"expected an image_processor_type that transformers knows in {path}, got {kind!r}"
        )


def _assumed(config: Any) -> tuple[Preprocessing, str, bool]:
    """What most ImageNet classifiers on the hub use; reported in a note, because it may be wrong for these weights."""
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
        gray = _channels(config) == 1
        preprocessing = preprocessing.in_gray() if gray else preprocessing
    except (TypeError, ValueError) as error:
        raise WrongWeights(f"expected image_size as one or two numbers of pixels, got {size!r}") from error
    note = (
        f"the folder has no preprocessor_config.json: assumed a bicubic resize to {preprocessing.resize}, "
        f"a center crop of {height} x {width}, "
        f"and ImageNet's mean and std{' averaged for the one gray channel' * gray}"
    )
    return preprocessing, note, False


def _channels(config: Any) -> int:
    """Channels of the network's input: 1 or 3."""
    return 1 if getattr(config, "num_channels", 3) == 1 else 3


def preprocessing_of_processor(processor: Any, channels: int = 3) -> tuple[Preprocessing, str | None, bool]:
    """What `processor` does to an image, read from its settings and checked by running it.

    Mean and std come from running it on a black and a white image, so that they include rescaling, offsets
    and double normalization. The resize is the candidate that reproduces the processor's own output. For a
    network of one channel the processor gets gray images in Pillow's mode L, as a dataset of gray images has
    them.

    Raises:
        WrongWeights: the processor's output is not an image with this many channels and a fixed size.
    """
    if channels == 1 and len(np.atleast_1d(getattr(processor, "image_mean", None) or [0.5])) == 3:
        made, note, _ = preprocessing_of_processor(processor)
        told = f"{type(processor).__name__} has mean and std of three channels: using their averages for gray"
        return made.in_gray(), "; ".join(filter(None, (told, note))), False
    black, white = (_run(processor, _plain((level,) * 3), channels) for level in (0, 255))
    probe = _probe()
    theirs = _run(processor, probe, channels)
    if theirs.shape != black.shape or theirs.shape[0] != channels:
        raise WrongWeights(
            f"expected images of {channels} channel{'s' * (channels > 1)} and of one size from "
            f"{type(processor).__name__}, got {black.shape} and {theirs.shape}"
        )
    height, width = theirs.shape[1:]
    low, high = black[:, height // 2, width // 2], white[:, height // 2, width // 2]
    std = 1 / (high - low)
    mean = -low * std
    reverse = False
    if channels == 3:
        red = _run(processor, _plain((255, 0, 0)), channels)
        reverse = bool(red[2, height // 2, width // 2] > red[0, height // 2, width // 2])
    if reverse:
        mean, std, theirs = mean[::-1], std[::-1], theirs[::-1]
    levels = (theirs * std[:, None, None] + mean[:, None, None]).transpose(1, 2, 0) * 255

    best, best_difference = None, np.inf
    for resize, fit in _resizes(processor, height, width):
        candidate = Preprocessing(
            input_size=(height, width),
            resize=resize,
            interpolation=_interpolation(processor),
            mean=tuple(round(float(value), 6) for value in mean),
            std=tuple(round(float(value), 6) for value in std),
            crop_rounding="down",
            fit=fit,
        )
        difference = float(np.abs(candidate(probe).astype(np.float64) - levels).mean())
        if difference < best_difference:
            best, best_difference = candidate, difference
    assert best is not None
    if best_difference <= _SAME_LEVELS:
        return best, None, reverse
    note = (
        f"{type(processor).__name__} is approximated: on a test image the result differs by "
        f"{best_difference:.1f} of 255 levels on average"
    )
    return best, note, reverse


def _resizes(processor: Any, height: int, width: int) -> list[tuple[int | tuple[int, int], Fit]]:
    """Every resize, with its fit, that some processor of the library derives from settings like these."""
    size = processor.size
    settings = dict(size) if size is not None else {}
    short = settings.get("shortest_edge") or min(
        settings.get("height") or height, settings.get("width") or width
    )
    ratio = getattr(processor, "crop_pct", None) or 224 / 256
    exact = (settings.get("height") or short, settings.get("width") or short)
    sizes: list[int | tuple[int, int]] = [(height, width), exact, short, min(height, width)]
    sizes += [int(short / ratio), int(256 / 224 * short)]
    found: list[tuple[int | tuple[int, int], Fit]] = [(size, "exact") for size in dict.fromkeys(sizes)]
    edge = getattr(processor, "resize_short", None)
    if edge:  # PP-LCNet rounds the longer side, all others truncate it
        found.insert(0, ((edge, edge), "cover"))
    return found


def _interpolation(processor: Any) -> Interpolation:
    resample = getattr(processor, "resample", None)
    for name, value in INTERPOLATIONS.items():
        if resample is not None and int(resample) == int(value):
            return name
    return "bilinear"


def _run(processor: Any, image: Image.Image, channels: int) -> npt.NDArray[np.float64]:
    """C,H,W as the processor passes it to a network, for an RGB image or the same in gray."""
    options = {}
    if channels == 1:
        image = image.convert("L")
        if getattr(processor, "do_convert_rgb", None):
            options["do_convert_rgb"] = False
    pixels = processor(images=image, return_tensors="pt", **options)["pixel_values"]
    return np.asarray(pixels[0], dtype=np.float64)


def _plain(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGB", (512, 512), colour)


def _probe() -> Image.Image:
    """An image with coarse and fine structure and uneven sides, so that every other resize gives another result."""
    y, x = np.mgrid[0:509, 0:643]
    waves = [np.sin(x / period + phase) * np.cos(y / period) for period, phase in ((31, 0), (17, 1), (9, 2))]
    pixels = np.stack([(wave + 1) * 127.5 for wave in waves], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))
