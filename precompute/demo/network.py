"""The student network, ConvNeXt-atto: construction, preprocessing and features."""

import numpy as np
import torch
from torch import Tensor, nn

from precompute.demo.data import Bytes
from precompute.demo.recipe import CLASSES, SIDE
from precompute.images.wordnet import imagenet_wnids
from workers.torchvision_import import import_library


def new_network(seed: int) -> nn.Module:
    """ConvNeXt-atto with random weights, 3.7 million parameters."""
    transformers = import_library("transformers")
    torch.manual_seed(seed)
    wnids = imagenet_wnids()
    config = transformers.ConvNextConfig(
        depths=[2, 2, 6, 2],
        hidden_sizes=[40, 80, 160, 320],
        image_size=SIDE,
        layer_scale_init_value=0.1,  # the usual 1e-6 needs longer training
        num_labels=CLASSES,
        id2label=dict(enumerate(wnids)),
        label2id={wnid: index for index, wnid in enumerate(wnids)},
    )
    network: nn.Module = transformers.ConvNextForImageClassification(config)
    for name, module in network.named_modules():
        # the usual 0.02 suits wider layers
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "classifier":
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return network


def student_features(network: nn.Module, pixels: Tensor) -> Tensor:
    """Input of the classifier, float32 N,320, for `pixels` N,3,H,W in [0, 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        given = normalized(pixels).contiguous(memory_format=torch.channels_last)
        read: Tensor = network.get_submodule("convnext")(given).pooler_output
    return read.float()


def to_pixels(pixels: Bytes) -> Tensor:
    """uint8 N,H,W,3 as float32 N,3,H,W in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255


def normalized(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] scaled to the network's input range [-1, 1]."""
    return (pixels - 0.5) / 0.5
