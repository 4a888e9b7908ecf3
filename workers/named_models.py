"""Models with a short name. Loads no torch, so that pages can offer them."""

from dataclasses import dataclass

PACKAGED = "package:efficientnet-lite0"


@dataclass(frozen=True)
class NamedModel:
    """A model with a short name: the specification it stands for, and a title for people."""

    spec: str
    title: str


NAMED_MODELS: dict[str, NamedModel] = {
    "convnext-tiny": NamedModel("hf:facebook/convnext-tiny-224", "ConvNeXt-tiny (Liu et al. 2022)"),
    "resnet-50": NamedModel("hf:microsoft/resnet-50", "ResNet-50 (He et al. 2016)"),
    "mobilenet-v2": NamedModel("torchvision:mobilenet_v2", "MobileNetV2 (Sandler et al. 2018)"),
    "efficientnet-lite0": NamedModel(
        PACKAGED, "EfficientNet-Lite0 (Tan and Le 2019), installed with Convscope: needs no internet"
    ),
}
