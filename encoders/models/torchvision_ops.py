"""Make torchvision importable next to a CPU-only torch; import this before transformers or
open_clip.

torchvision's published wheel is built against CUDA. With a CPU torch its compiled operators are not
registered. `import torchvision` then fails, because it attaches shape functions to missing
operators. Declaring the two schemas is enough for the import; nothing in Reelbank calls them. With
a complete torchvision build this does nothing.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# a Library withdraws its schemas when it is collected, so it must stay referenced
_library: torch.library.Library | None = None


def declare_missing() -> list[str]:
    """Declare the missing operator schemas that torchvision needs at import; return their names."""
    global _library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return []
    for binary in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            # as torchvision itself does first: a complete build registers everything here
            torch.ops.load_library(str(binary))
        except OSError:
            continue  # built for another torch, the case that this file exists for
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        _library = _library or torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            _library.define(_SCHEMAS[name])
    return missing


declare_missing()
