"""A program: tensors of a pickle -> safetensors. `python unpickle.py PICKLE TARGET`

Started by lite0_weights.py in a process of its own. Imports nothing of Reelbank.
"""

import sys


def main(pickle: str, target: str) -> None:
    """Write the float tensors of the pickle; counters of training steps are left out."""
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(pickle, weights_only=True, map_location="cpu")
    save_file(
        {name: one.contiguous() for name, one in tensors.items() if torch.is_floating_point(one)},
        target,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
