"""A VideoQA over the toy model, and films for it."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from memory.schema import Question
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.answer.schema import local
from pipeline.build import GROUPS, AnyModel, build_backbone, build_qa, build_source
from pipeline.config.checks import check_ranges
from pipeline.config.compose import compose
from pipeline.config.parts import check
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.qa import VideoQA
from tests.support.toys import toy_parts

SHORT = ("reader.max_new_tokens=8",)


TEXT = "In what order did the star, the circle and the heart appear?"


_loaded: dict[str, AnyModel] = {}


def loaded_once(config: AskSettings) -> AnyModel:
    """`build_backbone`, but one model for all tests that choose the same: loading takes 0.2 s. For
    tests that leave the model as it is.
    """
    check_ranges(config)
    for group in GROUPS:
        check(group, getattr(config, group))
    key = json.dumps([config.backbone, config.seed])
    if key not in _loaded:
        _loaded[key] = build_backbone(config)
    return _loaded[key]


@contextmanager
def opened(
    film: Path,
    bank: Path,
    *overrides: str,
    says: str = "",
    build: Callable[[AskSettings], AnyModel] = build_backbone,
) -> Iterator[tuple[VideoQA, object]]:
    """The parts of `reelbank ask` and the video's source. build: makes or finds the model."""
    config = compose(
        "ask",
        [f"video={film}", f"bank={bank}", f"question={TEXT}", *toy_parts(says), *SHORT, *overrides],
    )
    backbone = build(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        yield qa, source


def with_reader(qa: VideoQA, reader: type[KVReader] | type[TokenReader]) -> VideoQA:
    """The same parts with another reader."""
    backbone = local(qa.answerer.reader, "a test").backbone
    return replace(qa, answerer=replace(qa.answerer, reader=reader(backbone, max_new_tokens=8)))


def ask(qa: VideoQA, source, text: str = TEXT, asked_at: float = math.inf) -> dict:
    """The answer without what differs between two runs anyway."""
    answer = asdict(qa.ask(Question(text, source.info.video_id, asked_at)))
    for call in answer["trace"]["calls"]:
        del call["seconds"]
    return {
        key: value
        for key, value in answer.items()
        if key not in ("seconds", "asked_at", "video_id")
    }


def scenes(number: int, seconds: float) -> np.ndarray:
    """Pictures that change a little every frame and wholly every 6 to 9 seconds."""
    scene = int(np.searchsorted(np.cumsum([6, 9, 7, 8, 6, 9, 7, 8, 6, 9]), seconds, side="right"))
    rng = np.random.default_rng(scene)
    picture = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    picture[number % 60 : number % 60 + 4, :8] = 255
    return picture


@contextmanager
def held_at(qa, token: int):
    """The reader stops at its n-th token (from 0) until `go_on` is set. `reached` is set when it is
    there.
    """
    reached, go_on = threading.Event(), threading.Event()
    model = qa.backbone.language_model
    decode = model.decode

    def slow(*args, **kwargs):
        for i, each in enumerate(decode(*args, **kwargs)):
            if i == token:
                reached.set()
                assert go_on.wait(20)
            yield each

    model.decode = slow
    try:
        yield reached, go_on
    finally:
        go_on.set()
        del model.decode
