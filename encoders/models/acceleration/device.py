"""Which device a model runs on. Knows torch; importing it loads no transformers."""

import torch

from encoders.errors import UserError


def check_device(device: str, key: str = "backbone.device") -> torch.device:
    """The device, after a number was put there. UserError if it is unknown or unavailable. key: the
    setting that names it.
    """
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(
            f"{key}={device} is not available here; use one of {', '.join(here)}."
        ) from error
    return resolved
