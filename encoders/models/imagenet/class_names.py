"""The names and glosses of ImageNet's 1000 classes, from WordNet, as timm lists them.

timm is installed with open_clip. Importing it takes a second, so the list is kept in the user's
cache.
"""

import functools
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from encoders.errors import UserError
from encoders.user_cache import user_cache

CLASSES = 1000


@dataclass(frozen=True, slots=True)
class ImageClass:
    """A class of pictures."""

    names: str  # synonyms, separated by commas: "tench, Tinca tinca"
    gloss: str  # what WordNet says of it

    @property
    def label(self) -> str:
        """The first name."""
        return self.names.partition(",")[0]


@functools.cache
def image_classes() -> tuple[ImageClass, ...]:
    """The classes in the order of a classifier's outputs. UserError if timm has no such list."""
    cached_file = _cache_file()
    with suppress(OSError, ValueError, TypeError):
        if cached_file is not None:
            found = tuple(ImageClass(*pair) for pair in json.loads(cached_file.read_bytes()))
            if len(found) == CLASSES:
                return found
    found = _list_of_timm()
    with suppress(OSError):
        if cached_file is not None:
            _keep(cached_file, found)
    return found


def _cache_file() -> Path | None:
    with suppress(OSError, metadata.PackageNotFoundError):
        return user_cache("weights") / f"imagenet-classes-timm-{metadata.version('timm')}.json"
    return None


def _list_of_timm() -> tuple[ImageClass, ...]:
    import encoders.models.torchvision_ops  # noqa: F401  (first: timm imports torchvision)

    try:
        from timm.data import ImageNetInfo  # isort: skip
    except ImportError as error:
        raise UserError(
            f"the names of ImageNet's classes come with timm, which cannot be imported ({error}); "
            "say `pip install timm`"
        ) from error
    info = ImageNetInfo()
    pairs = (
        (info.index_to_description(number), info.index_to_description(number, detailed=True))
        for number in range(CLASSES)
    )
    return tuple(ImageClass(names, full.removeprefix(f"{names}: ")) for names, full in pairs)


def _keep(path: Path, classes: tuple[ImageClass, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number, draft = tempfile.mkstemp(dir=path.parent)
    with open(number, "w", encoding="utf-8") as stream:
        json.dump([(one.names, one.gloss) for one in classes], stream)
    os.replace(draft, path)
