"""The device that a network runs on."""

import torch


def find_device(name: str) -> torch.device:
    """The device with that name; "auto" selects CUDA, then MPS, then the CPU.

    Raises:
        ValueError: no such device is available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # the device "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device: expected auto, cpu, or a device that torch finds on this machine, got {name!r}"
        ) from error
    return device
