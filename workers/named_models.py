"""Models with a short name. Loads no torch, so that pages can offer them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedModel:
    """A model with a short name: the specification it stands for, a title for people, and what is fetched for it
    in megabytes, 0 where the weights are installed with Convscope.
    """

    spec: str
    title: str
    download: int = 0


NAMED_MODELS: dict[str, NamedModel] = {
    "convnext-tiny": NamedModel("hf:facebook/convnext-tiny-224", "ConvNeXt-tiny (Liu et al. 2022)", 114),
    "resnet-50": NamedModel("hf:microsoft/resnet-50", "ResNet-50 (He et al. 2016)", 102),
    "mobilenet-v2": NamedModel("torchvision:mobilenet_v2", "MobileNetV2 (Sandler et al. 2018)", 14),
    "convnext-demo": NamedModel(
        "package:convnext-demo", "ConvNeXt-atto, trained small for Convscope and installed with it"
    ),
    "efficientnet-lite0": NamedModel(
        "package:efficientnet-lite0", "EfficientNet-Lite0 (Tan and Le 2019), installed with Convscope"
    ),
}
