"""Where a network runs."""

import torch


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # the device "meta" holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: expected auto, cpu, or one that torch finds here, got {name!r}") from error
    return device
