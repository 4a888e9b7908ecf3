"""The precision of a forward pass."""

import pytest
import torch
from torch import nn

from precompute.index.forward import Dtype, ForwardConfig


def manner(device: str, dtype: Dtype) -> ForwardConfig:
    return ForwardConfig(torch.device(device), dtype, batch_size=1, memory_format=torch.contiguous_format)


def test_float32_on_cuda_is_not_tf32_and_repeats_itself() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.deterministic)
    with manner("cuda", "float32").precision():
        assert not cudnn.allow_tf32
        assert cudnn.deterministic
        assert cudnn.enabled
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (cudnn.allow_tf32, cudnn.deterministic) == before


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_layers_compute_in_the_dtype(dtype: Dtype, expected: torch.dtype) -> None:
    with torch.inference_mode(), manner("cpu", dtype).precision():
        assert nn.Conv2d(1, 1, 1)(torch.rand(1, 1, 2, 2)).dtype == expected
