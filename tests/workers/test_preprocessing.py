"""Preprocessing equals the libraries' own pipelines, and boxes map back to the photo."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workers.models.preprocessing import HALF, Preprocessing
from workers.models.sources.huggingface import preprocessing_of_processor
from workers.models.sources.timm import preprocessing_of_timm
from workers.models.sources.torchvision import preprocessing_of_weights
from workers.torchvision_import import import_library

# (width, height): wide, tall, square, odd margins to crop, smaller than any crop, one pixel high
SIZES = [(500, 375), (333, 517), (256, 256), (401, 259), (61, 83), (640, 1)]
PLAIN = Preprocessing((224, 224), 256, "bilinear", HALF, HALF)


def picture(width: int, height: int) -> Image.Image:
    """Return an image of smooth structure with noise, different in each channel."""
    generator = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([np.sin(x / 23 + c) * np.cos(y / 17 - c) for c in range(3)], axis=-1)
    pixels = 127 + 80 * smooth + generator.normal(0, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def normalised(preprocessing: Preprocessing, image: Image.Image) -> npt.NDArray[np.float64]:
    """Return 3,H,W as a network would receive it."""
    pixels = preprocessing(image) / 255.0
    return ((pixels - preprocessing.mean) / preprocessing.std).transpose(2, 0, 1)


def levels_apart(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], preprocessing: Preprocessing) -> float:
    """Return the largest difference in 8-bit levels."""
    assert ours.shape == theirs.shape
    return float((np.abs(ours - theirs).max(axis=(1, 2)) * preprocessing.std).max() * 255)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "weights",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "MobileNet_V2_Weights.IMAGENET1K_V2",
        "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "Inception_V3_Weights.IMAGENET1K_V1",
        "RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
def test_preprocessing_equals_torchvisions_transforms_to_the_level(
    weights: str, size: tuple[int, int]
) -> None:
    theirs = import_library("torchvision.models").get_weight(weights)
    ours = preprocessing_of_weights(theirs)
    image = picture(*size)
    assert levels_apart(normalised(ours, image), theirs.transforms()(image).numpy(), ours) < 0.01


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tf_efficientnet_lite0", {}),
        ("convnext_atto", {"crop_pct": 0.95}),
        ("vit_tiny_patch16_224", {}),
        ("resnet18", {"crop_mode": "squash", "crop_pct": 0.9, "interpolation": "bilinear"}),
        ("mobilenetv3_small_050", {"input_size": (3, 160, 160)}),
    ],
)
def test_preprocessing_equals_timms_transform_to_the_level(name: str, settings: dict[str, Any]) -> None:
    data = import_library("timm.data")
    network = import_library("timm").create_model(name, pretrained_cfg_overlay=settings)
    ours, note = preprocessing_of_timm(network)
    assert note is None
    transform = data.create_transform(**data.resolve_model_data_config(network))
    for size in SIZES:
        image = picture(*size)
        assert levels_apart(normalised(ours, image), transform(image).numpy(), ours) < 0.01


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_every_crop_mode_of_timm_gives_the_same_bits(mode: str, interpolation: str) -> None:
    """timm's own transform before it converts to float: uint8, for square and other inputs, tiny and thin images."""
    data = import_library("timm.data")
    for input_size in ((3, 96, 96), (3, 64, 129), (3, 131, 80), (1, 28, 28)):
        network = import_library("timm").create_model("test_resnet", in_chans=input_size[0])
        for crop_pct in (0.875, 1.0):
            network.pretrained_cfg |= {
                "input_size": input_size,
                "crop_mode": mode,
                "crop_pct": crop_pct,
                "interpolation": interpolation,
                "mean": (0.485, 0.456, 0.406)[: input_size[0]],
                "std": (0.229, 0.224, 0.225)[: input_size[0]],
            }
            ours, note = preprocessing_of_timm(network)
            assert note is None
            transform = data.create_transform(**data.resolve_model_data_config(network), normalize=False)
            for size in [(500, 375), (333, 517), (256, 256), (401, 259), (61, 83), (5, 7), (640, 30), (1, 1)]:
                image = picture(*size)
                theirs = transform(image if input_size[0] == 3 else image.convert("L")).numpy()
                assert (ours(image) == theirs.transpose(1, 2, 0)).all(), (input_size, crop_pct, size)


@pytest.mark.parametrize("processor", ["ViT", "ConvNext", "Bit", "EfficientNet", "Levit"])
def test_gray_is_luminance_as_the_processor_gets_it(processor: str) -> None:
    made = getattr(import_library("transformers"), f"{processor}ImageProcessorPil")(
        image_mean=[0.13], image_std=[0.31]
    )
    ours, note, reverse = preprocessing_of_processor(made, channels=1)
    assert (ours.channels, note, reverse) == (1, None, False)
    options = {"do_convert_rgb": False} if getattr(made, "do_convert_rgb", None) else {}
    for size in SIZES[:4]:
        image = picture(*size)
        theirs = np.asarray(
            made(images=image.convert("L"), return_tensors="np", **options)["pixel_values"][0]
        )
        apart = np.abs(normalised(ours, image) - theirs) * ours.std[0] * 255
        assert apart.max() <= 5.1
        assert apart.mean() < 0.3


def test_a_gray_image_is_the_same_to_a_gray_model_as_in_colors() -> None:
    gray = picture(90, 90).convert("L")
    ours = replace(PLAIN, input_size=(90, 90), resize=90, mean=(0.5,), std=(0.5,))
    assert (ours(gray.convert("RGB"))[:, :, 0] == np.asarray(gray)).all()


def test_new_settings_enter_digests_only_if_used() -> None:
    """Digests of models that are already indexed depend on this text, so it must not change for them."""
    assert repr(PLAIN) == (
        "Preprocessing(input_size=(224, 224), resize=256, interpolation='bilinear', mean=(0.5, 0.5, 0.5), "
        "std=(0.5, 0.5, 0.5), crop_rounding='half_even')"
    )
    assert repr(replace(PLAIN, resize=(9, 8), fit="cover", fill=(1, 2, 3))).endswith(
        "crop_rounding='half_even', fit='cover', fill=(1, 2, 3))"
    )


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 288}, "crop_pct": 0.95}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", {"do_normalize": False, "size": {"height": 96, "width": 128}}),
    ("BitImageProcessor", {}),
    ("DeiTImageProcessor", {}),
    ("LevitImageProcessor", {}),
    ("EfficientNetImageProcessor", {}),
    ("MobileNetV2ImageProcessor", {}),
    ("CLIPImageProcessor", {"image_mean": [0.2, 0.4, 0.6], "image_std": [0.1, 0.2, 0.3]}),
]


@pytest.mark.parametrize("backend", ["Pil", ""], ids=["pillow", "torchvision"])
@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_preprocessing_equals_transformers_processor(
    name: str, settings: dict[str, Any], backend: str
) -> None:
    """To within one level of its Pillow pipeline; its torchvision pipeline resizes tensors and rounds differently."""
    processor = getattr(import_library("transformers"), name + backend)(**settings)
    ours, note, reverse = preprocessing_of_processor(processor)
    assert (note, reverse) == (None, False)
    for size in SIZES[:4]:
        image = picture(*size)
        theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        apart = np.abs(normalised(ours, image) - theirs) * np.asarray(ours.std)[:, None, None] * 255
        assert apart.max() <= (1.1 if backend else 5.1)
        assert apart.mean() < 0.3


def test_a_processor_that_swaps_red_and_blue_is_noticed() -> None:
    processor = import_library("transformers").MobileViTImageProcessorPil()
    ours, note, reverse = preprocessing_of_processor(processor)
    assert reverse
    assert note is None
    image = picture(500, 375)
    theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
    assert np.abs(normalised(ours, image)[::-1] - theirs).max() * 255 <= 1.1


def test_no_normalization_is_mean_zero_and_std_one() -> None:
    processor = import_library("transformers").ViTImageProcessorPil(do_normalize=False)
    ours, _, _ = preprocessing_of_processor(processor)
    assert ours.mean == (0, 0, 0)
    assert ours.std == (1, 1, 1)


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    resize=st.integers(16, 300) | st.tuples(st.integers(16, 300), st.integers(16, 300)),
)
@settings(max_examples=60, deadline=None)
def test_the_resized_size_is_torchvisions(width: int, height: int, resize: int | tuple[int, int]) -> None:
    functional = import_library("torchvision.transforms.functional")
    ours = replace(PLAIN, resize=resize).resized_size(width, height)
    meta = torch.empty(3, height, width, device="meta")
    assert ours == functional.resize(meta, resize, antialias=False).shape[1:]


@given(
    width=st.integers(30, 700),
    height=st.integers(30, 700),
    resize=st.sampled_from([64, 96, 97, (96, 96), (80, 120)]),
    fit=st.sampled_from(["exact", "cover", "contain"]),
    rounding=st.sampled_from(["half_even", "down"]),
    y=st.integers(0, 63),
    x=st.integers(0, 63),
)
@settings(max_examples=80, deadline=None)
def test_a_box_in_the_input_shows_the_same_place_in_the_photograph(
    width: int, height: int, resize: int | tuple[int, int], fit: Any, rounding: Any, y: int, x: int
) -> None:
    """The photo is its own ruler: red increases with x and green with y."""
    rows, columns = np.mgrid[0:height, 0:width]
    ruler = np.stack([(columns + 0.5) / width, (rows + 0.5) / height, rows * 0], axis=-1)
    image = Image.fromarray((ruler * 255).round().astype(np.uint8))
    if isinstance(resize, int):
        fit = "exact"
    preprocessing = replace(PLAIN, input_size=(64, 64), resize=resize, crop_rounding=rounding, fit=fit)
    resized_height, resized_width = preprocessing.resized_size(width, height)
    if resized_height < 64 or resized_width < 64:
        return  # a border: positions in it are clipped
    red, green, _ = preprocessing(image)[y, x] / 255
    y0, x0, y1, x1 = preprocessing.box_in_image((y, x, y + 1, x + 1), width, height)
    # the filter blurs the ruler's ends by up to a pixel of the smaller scale
    assert (x0 + x1) / 2 / width == pytest.approx(red, abs=0.01 + 1.5 / min(width, resized_width))
    assert (y0 + y1) / 2 / height == pytest.approx(green, abs=0.01 + 1.5 / min(height, resized_height))


def test_the_whole_input_is_the_whole_photograph_where_nothing_is_cropped() -> None:
    squashing = replace(PLAIN, resize=(224, 224))
    assert squashing.box_in_image((0, 0, 224, 224), 640, 427) == (0, 0, 427, 640)


def test_a_box_in_the_black_border_is_clipped_to_nothing() -> None:
    small = replace(PLAIN, resize=100)
    y0, x0, y1, x1 = small.box_in_image((0, 0, 20, 20), 50, 50)
    assert (y0, x0, y1, x1) == (0, 0, 0, 0)


def test_an_image_smaller_than_the_crop_gets_a_black_border_on_all_sides() -> None:
    result = replace(PLAIN, resize=100)(Image.new("RGB", (50, 50), "white"))
    assert result.shape == (224, 224, 3)
    assert (result[62:162, 62:162] == 255).all()
    assert result.sum() == 100 * 100 * 3 * 255


def test_an_image_of_the_inputs_size_is_untouched() -> None:
    image = picture(224, 224)
    assert (replace(PLAIN, resize=224)(image) == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (0, 224)}, "input_size: expected positive"),
        ({"resize": 0}, "resize: expected positive"),
        ({"interpolation": "cubic"}, "expected one of nearest, bilinear, bicubic, .* got 'cubic'"),
        ({"std": (0.2, 0.0, 0.2)}, "std positive"),
        ({"mean": (0.2,)}, "or one, for one channel"),
        ({"fit": "cover"}, r"resize: expected \(height, width\) to cover, got 256"),
        ({"fill": (1, 2)}, "fill: expected a level of 0 to 255 per channel"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **changes)


def test_only_rgb_images_are_taken() -> None:
    with pytest.raises(ValueError, match="expected an RGB image, got mode 'L'"):
        PLAIN(Image.new("L", (300, 300)))


def test_preprocessing_loads_no_torch() -> None:
    script = "import sys, workers.models.preprocessing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
