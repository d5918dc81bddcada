"""The arms of the needle benchmark: resolved configurations of the pipeline, and controls of the
first one.

An arm's configuration is the command line's with a few overrides. A control (conf/control/) has the
configuration of the first arm, and its bank: it chooses other frames, or shows another version of
the film. Knows no film's pixels and no score.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.answer.strategies.schema import AnswerStrategy
from pipeline.build import AnyModel, build_qa
from pipeline.config.settings import PartSettings
from pipeline.config.tasks.evaluation_settings import NeedleSettings
from pipeline.config.tasks.pipeline_settings import ON_DEMAND, ON_DEMAND_BLOCKS
from pipeline.controls.build import build_control, control_settings
from pipeline.controls.schema import Control
from pipeline.evaluation.needle.films.make import needles_alone, without_needles
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.kv_policy.schema import stores_otherwise
from pipeline.qa import VideoQA

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
UNRELATED = frozenset(
    "action out bank format given arms controls dials bank_mb papers predictions keep_banks "
    "twin_minutes full_tokens minutes tokens depths tasks needle_task needles films looks "
    "needle_seconds spliced haystack width height threads ram_mb device_mb prefetch_frames "
    "keep_freed_mb".split()
)


@dataclass(eq=False)  # by identity: it holds a model
class Arm:
    """One column of the tables. `qa` is built on first use and kept for all films."""

    name: str
    config: NeedleSettings
    key: str  # digest of all settings that can change an answer
    bank: Path
    model: Callable[[], AnyModel]
    # None: the configuration itself
    control: Control | None = None
    control_node: PartSettings = field(default_factory=dict)
    # the arm whose control this is, and whose bank it reads
    base: "Arm | None" = None
    _qa: VideoQA | None = field(default=None, repr=False)

    @property
    def control_name(self) -> str:
        """ "" for a configuration."""
        return "" if self.control is None else self.name

    @property
    def shows_needles(self) -> bool:
        """Whether there is anything to find in what it reads."""
        return self.control is None or self.control.showing in ("film", "needles")

    @property
    def encodes_on_demand(self) -> bool:
        """Whether its questions encode what they read."""
        return _encodes_on_demand(self.config)

    @property
    def qa(self) -> VideoQA:
        """The pipeline, on a bank of this arm's encoding."""
        if self.base is not None:
            return self.base.qa
        if self._qa is None:
            self._qa = build_qa(self.config.changed(bank=str(self.bank)), self.model())
        return self._qa

    def variant(self, film: Film) -> Film:
        """The version of the film that is encoded for it."""
        showing = "film" if self.control is None else self.control.showing
        if showing == "haystack":
            return without_needles(film)
        return needles_alone(film) if showing == "needles" else film

    def strategy(self, item: Item, film: Film) -> AnswerStrategy | None:
        """How it answers; None where it is not asked."""
        own = self.qa.answerer.strategy
        clue = self.variant(film).spans(item.needles) if self.shows_needles else ()
        return own if self.control is None else self.control.strategy(clue, own)

    def asks(self, item: Item, film: Film) -> bool:
        """Whether it answers this item. Builds no bank."""
        if self.control is None:
            return True
        if self.control.showing == "haystack" and film.seconds > 60 * self.config.twin_minutes:
            return False
        if self.control.most_tokens is not None:
            frames = film.seconds * self.config.fps
            return frames * self.model().tokens_per_frame <= self.control.most_tokens
        return self.control.strategy(film.spans(item.needles), Retrieve()) is not None

    def record(self) -> dict[str, Any]:
        """Its line of configurations.jsonl, which rows refer to by key."""
        return {
            "key": self.key,
            "arm": self.name,
            "control": self.control_node,
            "bank": self.bank.name,
            "config": settings_of(self.config),
        }

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
        _arm(str(name), compose(list(overrides or [])), parts)
        for name, overrides in config.arms.items()
    ]
    first = all_arms[0]
    nodes = control_settings(config.controls, config.full_tokens)
    all_arms += [_control(name, node, first) for name, node in nodes.items()]
    names = [arm.name for arm in all_arms]
    if len(set(names)) < len(names):
        raise UserError(
            f"Two arms have one name among {', '.join(names)}; a control has the name of what it "
            "does."
        )
    return all_arms


def _arm(name: str, config: NeedleSettings, parts: Callable[[NeedleSettings], AnyModel]) -> Arm:
    plain = settings_of(config)
    encoding = [*_ENCODING, *(["kv_policy"] if stores_otherwise(config.kv_policy) else [])]
    # null and at_once are one way, and older runs keep the names of their banks
    encoding += ["visual_tokens"] if _encodes_on_demand(config) else []
    bank = _digest({name: plain[name] for name in encoding})
    folder = Path(config.out) / "banks" / bank
    return Arm(name, config, _digest(plain), folder, lambda: parts(config))


def _control(name: str, node: PartSettings, base: Arm) -> Arm:
    key = _digest(settings_of(base.config) | {"control": node})
    return Arm(name, base.config, key, base.bank, base.model, build_control(node), node, base)


def _encodes_on_demand(config: NeedleSettings) -> bool:
    return config.visual_tokens in (ON_DEMAND, ON_DEMAND_BLOCKS)


def settings_of(config: NeedleSettings) -> dict[str, Any]:
    """All settings that can change an answer, as plain values."""
    return {name: value for name, value in config.to_dict().items() if name not in UNRELATED}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
