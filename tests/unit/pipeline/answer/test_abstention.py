"""Abstention: what is measured, when it overrules the model, and that a group measures the same."""

import math

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from pipeline.answer.abstention import (
    FirstToken,
    Instruction,
    NoAbstention,
    Sufficiency,
    is_absent,
)
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.answer.schema import Abstention
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import NOT_SHOWN
from tests.support.families import FAMILIES, frames_for
from tests.support.toy_evidence import QUESTION, encode, evidence, silent, toy_of

INSTRUCTION = "If the video does not show it, answer only: not in the video."
CHECK = "Can this be answered? {question} Answer yes or no."


def parts(backbone, threshold: float = 0.5) -> list[Abstention]:
    """One of each kind."""
    return [
        NoAbstention(backbone=backbone),
        Instruction(INSTRUCTION, backbone=backbone),
        FirstToken(INSTRUCTION, threshold, backbone=backbone),
        Sufficiency(INSTRUCTION, CHECK, threshold, backbone=backbone),
    ]


def probabilities(reader, seen, prompt: str, tokens: list[int]) -> list[float]:
    """Of single tokens behind a prompt, by the reader's likelihoods of given answers."""
    ids = [[token] for token in tokens]
    values = reader.log_likelihoods(seen, prompt, ids, silent, ends=False).values
    return [math.exp(value) for value in values]


def first_tokens(backbone, letters: int, *answers: str) -> list[int]:
    firsts = {backbone.prompt.ids(s + a)[0] for a in answers for s in ("", " ")}
    return sorted(one for one in firsts if len(backbone.prompt.text_of([one]).strip()) >= letters)


@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "qwen3_vl"])
@pytest.mark.parametrize("reader_class", [KVReader, TokenReader])
def test_what_is_measured_is_the_probability_of_given_tokens(name, reader_class):
    backbone = toy_of(name)
    seen = evidence(encode(backbone, frames_for(backbone, 4), [2, 2]))
    none, told, first, sufficient = parts(backbone, 1.0)
    plain = reader_class(backbone, max_new_tokens=4)
    assert plain.read(seen, StageTimer()).absence is None
    assert (
        reader_class(backbone, max_new_tokens=4, abstention=none).read(seen, StageTimer()).text
        == plain.read(seen, StageTimer()).text
    )
    reading = reader_class(backbone, max_new_tokens=4, abstention=told).read(seen, StageTimer())
    assert reading.absence is None

    asked = f"{QUESTION}\n{INSTRUCTION}"
    reading = reader_class(backbone, max_new_tokens=4, abstention=first).read(seen, StageTimer())
    begins = first_tokens(backbone, 2, NOT_SHOWN, NOT_SHOWN.capitalize())
    assert reading.absence == pytest.approx(
        sum(probabilities(plain, seen, asked, begins)), rel=1e-4
    )
    reader = reader_class(backbone, max_new_tokens=4, abstention=sufficient)
    checked = reader.read(seen, StageTimer())
    prompt = CHECK.replace("{question}", QUESTION)
    yes = sum(probabilities(plain, seen, prompt, first_tokens(backbone, 1, "yes", "Yes")))
    no = sum(probabilities(plain, seen, prompt, first_tokens(backbone, 1, "no", "No")))
    assert checked.absence == pytest.approx(no / (yes + no), rel=1e-4)
    # the check leaves nothing behind: the answer is that of the instruction alone
    assert checked.text == reading.text
    assert checked.weights == pytest.approx(reading.weights, abs=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("reader_class", [KVReader, TokenReader])
def test_a_group_measures_what_each_question_measures_alone(name, reader_class):
    backbone = toy_of(name)
    if reader_class is KVReader and backbone.renumbers_frames:
        pytest.skip("its keys cannot be stored")
    runs = encode(backbone, frames_for(backbone, 4), [2, 2])
    group = [evidence(runs), evidence(runs[:1])]
    for abstention in parts(backbone, 0.0)[2:]:
        reader = reader_class(backbone, max_new_tokens=4, abstention=abstention)
        alone = [reader.read(each, StageTimer()) for each in group]
        both = BatchedReader(reader).read(group, StageTimer())
        # a threshold of 0 overrules whatever the model says, and cites nothing
        assert {one.text for one in (*alone, *both)} == {NOT_SHOWN}
        assert not any(one.weights for one in (*alone, *both))
        assert [one.absence for one in both] == pytest.approx(
            [one.absence for one in alone], abs=1e-5
        )
        lenient = type(abstention)(
            *([INSTRUCTION, CHECK] if abstention.check_prompt else [INSTRUCTION]),
            1.0,
            backbone=backbone,
        )
        reader = reader_class(backbone, max_new_tokens=4, abstention=lenient)
        assert [one.text for one in BatchedReader(reader).read(group, StageTimer())] == [
            reader.read(each, StageTimer()).text for each in group
        ]


def test_an_answer_that_is_overruled_is_emitted_as_it_is_given():
    backbone = toy_of("qwen2_vl")
    seen = evidence(encode(backbone, frames_for(backbone, 2), [2]))
    pieces: list[str] = []
    reader = KVReader(backbone, abstention=FirstToken("", 0.0, backbone=backbone))
    reading = reader.read(seen, StageTimer(), pieces.append)
    assert "".join(pieces) == reading.text == NOT_SHOWN


def test_a_model_of_the_needle_world_is_told_nothing_and_asked_no_check():
    backbone = build_backbone(compose("ask", []))
    assert Instruction(INSTRUCTION, backbone=backbone).instruction == ""
    with pytest.raises(UserError, match="never taught; use abstention=first_token"):
        Sufficiency(INSTRUCTION, CHECK, 0.5, backbone=backbone)


def test_a_threshold_of_1_never_overrules_the_model():
    backbone = toy_of("qwen2_vl")
    assert is_absent(0.99, FirstToken("", 0.99, backbone=backbone))
    assert not is_absent(1.0, FirstToken("", 1.0, backbone=backbone))
    assert not is_absent(None, FirstToken("", 0.5, backbone=backbone))
    assert not is_absent(1.0, NoAbstention())


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    backbone = toy_of("qwen2_vl")
    with pytest.raises(UserError, match="is no probability; use 0 to 1"):
        FirstToken(INSTRUCTION, threshold, backbone=backbone)


def test_a_token_that_begins_other_answers_does_not_count():
    """The embedded tokenizer has " not", but cuts " 7531" and " Not" behind their space."""
    backbone = build_backbone(compose("ask", []))
    (space, *_), (absent, *_) = (backbone.prompt.ids(text) for text in (" 7531", " not in it"))
    assert backbone.prompt.text_of([space]) == " "
    logits = torch.zeros(2, len(backbone.prompt._tokenizer))
    logits[0, space], logits[1, absent] = 50.0, 50.0
    part = FirstToken("", 0.5, backbone=backbone)
    assert part.absence(logits).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_a_model_behind_an_address_is_told_so_anyway(tmp_path):
    config = compose(
        "ask",
        [
            "backbone=endpoint", "backbone.url=http://127.0.0.1:9/v1", "backbone.model=m",
            "abstention=instruction", f"bank={tmp_path / 'bank'}",
        ],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"needs a model in this process.*leave abstention= out"):
        build_qa(config, build_backbone(config))
    assert not (tmp_path / "bank").exists()


def test_a_check_that_asks_nothing_is_refused():
    with pytest.raises(UserError, match=r"asks nothing; put \{question\} into it"):
        Sufficiency(INSTRUCTION, "Sure?", 0.5, backbone=toy_of("qwen2_vl"))


def test_probabilities_of_a_row_do_not_depend_on_the_others():
    backbone = toy_of("qwen2_vl")
    logits = torch.randn(3, 4096)[:, : len(backbone.prompt._tokenizer)]
    for abstention in parts(backbone)[2:]:
        alone = torch.cat([abstention.absence(row[None]) for row in logits])
        assert torch.equal(abstention.absence(logits), alone)
