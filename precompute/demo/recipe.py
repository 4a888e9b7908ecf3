"""Training settings: everything that determines a run besides its data."""

from dataclasses import dataclass

# Input size, larger than in training: "Fixing the train-test resolution discrepancy" (Touvron et al. 2019).
SIDE = 128


CLASSES = 1000

TEACHER = "efficientnet-lite0"

TEACHER_FEATURES = 1280

TEACHER_SIDE = 160  # of 96 to 224, where the teacher classifies upscaled 64-pixel images best

LOG_FIELDS = ("epoch", "side", "learning_rate", "loss", "top1", "agreement", "seconds")

# Epochs whose weights are kept in the checkout, for studies of the training itself.
KEPT_EPOCHS = (3, 6, 9, 12, 15, 18, 21, 28, 32, 36)


@dataclass(frozen=True)
class Recipe:
    """Settings of one training stage.

    Each photo yields `photo_views` square crops and each Imagenette image `imagenette_views`, with at least
    `smallest_view` of the area of its largest square; all views are stored at `view_side` pixels.
    `labeled_views`: whether their labels are used in addition to the teacher's outputs. Tiny-ImageNet's
    labels always are.

    `teacher_share` is the weight of the teacher in the loss, at `temperature`; the labels have the rest.
    `feature_weight` is the weight of the distance to the teacher's features. `mixup` is the parameter of the
    beta distribution. A view is enlarged by a factor of at most 1 / (1 - `zoom`), and its contrast and
    brightness change by at most `light`. The first `small_share` of the epochs use `small_side` pixels, the
    others `large_side`. `average` is the decay of the weights' running average.
    """

    epochs: int = 24
    batch: int = 64
    matrix_peak: float = 0.02
    other_peak: float = 1.5e-3
    warmup_epochs: float = 0.5
    weight_decay: float = 0.05
    teacher_share: float = 0.5
    temperature: float = 3.0
    mixup: float = 0.2
    zoom: float = 0.4
    light: float = 0.25
    small_side: int = 64
    large_side: int = 96
    small_share: float = 0.65
    average: float = 0.999
    view_side: int = 96
    photo_views: int = 4
    imagenette_views: int = 1
    smallest_view: float = 0.35
    labeled_views: bool = True
    feature_weight: float = 0.0
    seed: int = 0


# The second stage starts from the first one's weights and the teacher's classifier.
STAGES = (
    Recipe(),
    Recipe(
        epochs=16,
        batch=128,
        matrix_peak=0.008,
        other_peak=1e-3,
        zoom=0.3,
        small_share=0.5,
        view_side=128,
        photo_views=40,
        imagenette_views=4,
        smallest_view=0.2,
        labeled_views=False,
        feature_weight=6.0,
    ),
)
