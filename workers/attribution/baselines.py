"""Baselines: what replaces missing pixels."""

import cv2
import numpy as np
import torch
from torch import Tensor

BLUR_SIGMA = 10.0


def baseline_pixels(pixels: Tensor, mean: Tensor, kind: object) -> Tensor:
    """N,3,H,W: `mean`, the color that the model subtracts (1,3,1,1); `black`; or `blur`, with a sigma of 10 pixels."""
    if kind == "black":
        return torch.zeros_like(pixels)
    if kind == "mean":
        return mean.to(pixels).clamp(0, 1).expand_as(pixels).clone()
    assert kind == "blur", f"expected mean, black or blur, got {kind!r}"
    blurred = [
        cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA, borderType=cv2.BORDER_REFLECT).reshape(image.shape)
        for image in pixels.permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2).to(pixels)
