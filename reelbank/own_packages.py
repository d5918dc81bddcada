"""Whether the packages `encoders`, `memory`, `pipeline` and `conf` that Python finds are ours.

Other projects have packages of these names, and so may a user's folder. Imports none of them.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

NAMES = ("encoders", "memory", "pipeline", "conf")


def refuse_others() -> None:
    """ImportError, in one sentence, when Python finds one of the names elsewhere than beside us."""
    home = Path(__file__).resolve().parents[1]
    for name in NAMES:
        place = _place(name)
        if place is None:
            raise ImportError(
                f"reelbank needs its package {name!r}, which is not in {home}; install Reelbank "
                "again"
            )
        if place.parent != home:
            raise ImportError(
                f"{place} is in the way: reelbank has a package named {name!r} of its own, and "
                f"Python finds this one first; rename it, or take {place.parent} off Python's path"
            )


def _place(name: str) -> Path | None:
    """The folder or file that `import name` takes."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        spec = find_spec(name)
        file = None if spec is None else spec.origin
        if spec is not None and file is None:  # a folder without __init__.py
            file = str(Path(next(iter(spec.submodule_search_locations or []), "")) / "__init__.py")
    if file is None:
        return None
    path = Path(file).resolve()
    return path.parent if path.name == "__init__.py" else path
