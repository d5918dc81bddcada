"""Which things the extractors of things in the pictures can name, and whether they have looked.

What no extractor knows by name is not absent where no line names it. The name of a kind, such as
"vehicle", is none of them, although a class is a "recreational vehicle".
"""

from contextlib import suppress
from functools import cache

from encoders.errors import UserError
from encoders.models.imagenet.class_names import image_classes
from encoders.text.sightings.class_groups import group_names
from encoders.text.sightings.detector import CLASSES
from memory.bank import MemoryBank
from memory.schema import Question
from memory.text import tokenizer


def were_looked_for(thing: str, question: Question, bank: MemoryBank) -> bool:
    """Whether, in each video of a question and up to its moment there, an extractor has looked that
    knows things of this name, such as "dogs"."""
    knowing = [
        name
        for name, names in (("objects", _object_names()), ("labels", _label_names()))
        if any(tokenizer.words(thing) == tokenizer.words(each) for each in names)
    ]
    return bool(knowing) and all(
        any(
            run.extractor in knowing and (run.finished or run.until >= question.moment(video_id))
            for run in bank.text.runs(video_id)
        )
        for video_id in question.videos
    )


def _object_names() -> tuple[str, ...]:
    """Of the detector's classes."""
    return tuple(filter(None, CLASSES))


@cache
def _label_names() -> tuple[str, ...]:
    """Of groups and of classes, each synonym apart; of groups alone where the classes have no list
    here."""
    classes: tuple[str, ...] = ()
    with suppress(UserError):
        classes = tuple(each.names for each in image_classes())
    return tuple(name for names in group_names() + classes for name in names.split(","))
