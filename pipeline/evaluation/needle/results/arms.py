"""The arms of the needle benchmark: configurations of the pipeline, and controls.

Controls say what a score is worth:
- blind: no video; what the question and its options give away
- haystack_only: the same footage without needles; what the footage gives away
- needle_only: the needles on grey, everything read; whether the model can read them
- oracle: only the frames that show the needles, and their neighbours; perfect retrieval
- uniform: evenly spread frames, as many tokens as the configuration reads
- window: the newest frames alone, as many tokens
- full: every frame, where they fit into full_tokens

An arm's configuration is the command line's with a few overrides. Knows no film and no score.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import UserError
from memory.retrieval.common import hits, is_next, refuse_unknown
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.timeline import Timeline
from pipeline.build import READ_FRAMES, AnyModel, build_qa
from pipeline.config.settings import NeedleSettings
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.qa import VideoQA

CONTROLS = ("blind", "haystack_only", "needle_only", "oracle", "uniform", "window", "full")
# what a bank depends on, its words included: an answer finds all words that a bank has
_ENCODING = (
    "backbone",
    "clip",
    "further_clips",
    "source",
    "segmenter",
    "compressor",
    "prefill",
    "text",
    "dense",
    "fps",
    "kv_dtype",
    "token_dtype",
    "seed",
)
# settings that cannot change an answer to a given question about a given film; every other one
# belongs to the key of an arm, also a setting that is added one day
_UNRELATED = frozenset(
    "action out bank format given arms controls predictions keep_banks twin_minutes full_tokens "
    "minutes depths tasks needle_task films looks needle_seconds spliced haystack width height "
    "threads ram_mb device_mb prefetch_frames keep_freed_mb".split()
)


def near_needles(times: np.ndarray, spans: Sequence[Sequence[float]]) -> np.ndarray:
    """[T] bool: frames that show the needles of these spans, and the neighbours of such frames."""
    step = float(times[1] - times[0]) if len(times) > 1 else 1.0
    inside = [(times >= start - step) & (times < end + step) for start, end in spans]
    near: np.ndarray = np.any(inside, axis=0)
    return near


class OracleRetriever:
    """A retriever that knows the answer: the frames that show the needles, and their neighbours.

    The question's id carries the spans as JSON.
    """

    reads: frozenset[str] = frozenset()

    def __init__(self, **partners: object) -> None:
        self._times: dict[str, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        return sum(times.nbytes for times in list(self._times.values()))

    def add(self, segment: SegmentIndex) -> None:
        if is_next(segment, self.frame_count(segment.video_id)):
            before = self._times.get(segment.video_id, np.empty(0))
            self._times[segment.video_id] = np.concatenate([before, segment.times.numpy()])

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        stretches = refuse_unknown(stretches, self.frame_count)
        times = [self._times[video_id][first:stop] for video_id, first, stop in stretches]
        spans = json.loads(question.id)
        near = np.concatenate([near_needles(part, spans) for part in times] or [np.empty(0, bool)])
        places = np.flatnonzero(near)[:k]
        return hits(places, np.linspace(1, 0.5, len(places)), stretches)

    def frame_count(self, video_id: str) -> int:
        return len(self._times.get(video_id, ()))

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        pass

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        pass

    def forget(self, video_id: str) -> None:
        self._times.pop(video_id, None)


@dataclass(eq=False)  # by identity: it holds a model
class Arm:
    """One column of the tables. `qa` is built on first use and kept for all films."""

    name: str
    config: NeedleSettings
    control: str  # "" for a configuration
    key: str  # digest of all settings that can change an answer
    bank: Path
    _parts: Callable[[NeedleSettings], AnyModel]
    _qa: VideoQA | None = field(default=None, repr=False)

    @property
    def film_of(self) -> str:
        """The variant of a film that it is asked about; "" for none."""
        return {"blind": "", "haystack_only": "haystack", "needle_only": "needles"}.get(
            self.control, "film"
        )

    @property
    def qa(self) -> VideoQA:
        """The pipeline, on a bank of this arm's encoding."""
        if self._qa is None:
            backbone = self._parts(self.config)
            tokens = self.config.read_tokens or READ_FRAMES * backbone.tokens_per_frame
            config = self.config.changed(bank=str(self.bank))
            if self.control == "window":
                config.recent_frames = max(1, tokens // backbone.tokens_per_frame)
            elif self.control == "oracle":
                config.recent_frames = 0
            if self.control in ("uniform", "window"):
                config.retriever = {"_target_": _target(UniformRetriever), "_partial_": True}
            elif self.control == "oracle":
                config.retriever = {"_target_": _target(OracleRetriever), "_partial_": True}
            qa = build_qa(config, backbone)
            if self.control in ("full", "needle_only"):
                tokens = max(self.config.full_tokens, qa.answerer.read_tokens)
                qa = replace(qa, answerer=replace(qa.answerer, read_tokens=tokens))
            self._qa = qa
        return self._qa

    def asks(self, item: Item, film: Film) -> bool:
        """Whether this arm answers this item."""
        if self.control == "oracle":
            return bool(item.needles)
        if self.control == "full":
            frames = film.seconds * self.config.fps
            return frames * self._parts(self.config).tokens_per_frame <= self.config.full_tokens
        return self.control != "haystack_only" or film.seconds <= 60 * self.config.twin_minutes

    def budget(self, item: Item, film: Film) -> int:
        """Visual tokens that an answer may read; the oracle reads its frames and no others."""
        if self.control != "oracle":
            return self.qa.answerer.read_tokens
        times = np.arange(math.ceil(film.seconds * self.config.fps)) / self.config.fps
        return int(
            near_needles(times, film.spans(item.needles)).sum() * self.qa.backbone.tokens_per_frame
        )

    def close(self) -> None:
        """Close the bank, if it was opened."""
        if self._qa is not None:
            self._qa.bank.close()


def arms(
    config: NeedleSettings,
    compose: Callable[[Sequence[str]], NeedleSettings],
    parts: Callable[[NeedleSettings], AnyModel],
) -> list[Arm]:
    """The configured arms, then the controls of the first one.

    compose: overrides -> configuration, on top of the command line's. UserError on an unknown
    control.
    """
    if not config.arms:
        raise UserError("arms is empty; name at least one, such as +arms.clip=['retriever=clip'].")
    all_arms = [
        _arm(str(name), compose(list(overrides or [])), "", parts)
        for name, overrides in config.arms.items()
    ]
    for control in config.controls:
        if control not in CONTROLS:
            raise UserError(
                f"controls has {control!r}, which is no control; use some of {', '.join(CONTROLS)}."
            )
        all_arms.append(_arm(control, all_arms[0].config, control, parts))
    names = [arm.name for arm in all_arms]
    if len(set(names)) < len(names):
        raise UserError(
            f"Two arms have one name among {', '.join(names)}; a control has the name of what it "
            "does."
        )
    return all_arms


def _arm(
    name: str, config: NeedleSettings, control: str, parts: Callable[[NeedleSettings], AnyModel]
) -> Arm:
    plain = settings_of(config)
    bank = _digest({name: plain[name] for name in _ENCODING})
    key = _digest(plain | {"control": control, "full_tokens": config.full_tokens if control else 0})
    return Arm(name, config, control, key, Path(config.out) / "banks" / bank, parts)


def settings_of(config: NeedleSettings) -> dict[str, Any]:
    """All settings that can change an answer, as plain values."""
    return {name: value for name, value in config.to_dict().items() if name not in _UNRELATED}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _target(part: type) -> str:
    return f"{part.__module__}.{part.__qualname__}"
