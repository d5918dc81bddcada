"""A model that thinks before it answers: nobody reads the thought, and it has room of its own."""

import json
from contextlib import nullcontext

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.prefill import WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline import cli
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.likelihood import log_likelihood
from pipeline.answer.reader import KVReader, TokenReader
from tests.support.toys import toy_checkpoint, toy_frames, toy_parts
from tests.support.videos import write_video

THOUGHT, ANSWER = " the star is in a circle", "red"
# as Qwen3.5 writes it: closed at once if nobody wants a thought, else begun
SWITCH = (
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>"
    "{% else %}<think>{% endif %}"
)
ALWAYS = "<think>"  # as Qwen3-VL-Thinking: its template knows no switch
TURNS = {"no mark": "", "a switch": SWITCH, "always": ALWAYS}


def silent(stage: str):
    return nullcontext()


def load(turn: str, **options) -> LlavaOneVision:
    path = toy_checkpoint(says=ANSWER, thinks=THOUGHT, turn=TURNS[turn])
    return LlavaOneVision(str(path), **options)


def group(backbone: LlavaOneVision) -> list[Evidence]:
    seen = backbone.encode_frames(toy_frames(3))
    block = WindowPrefill(backbone, dtype="float32")(seen)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    runs = (Run("toy", 0, 0, seen, block),)
    return [
        Evidence(Question(text, "toy"), runs, none, 0, 1.0)
        for text in ("Which shape is red?", "How many stars?")
    ]


@pytest.mark.parametrize("reader_class", [TokenReader, KVReader])
@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("turn", sorted(TURNS))
def test_nobody_reads_the_thought(turn, wanted, reader_class):
    backbone = load(turn, enable_thinking=wanted)
    tokens = len(backbone.prompt.ids(f" {ANSWER}"))
    reader = reader_class(backbone, max_new_tokens=tokens)  # no room for the thought in these
    emitted: list[str] = []
    asked = group(backbone)
    readings = [reader.read(evidence, silent, emit=emitted.append) for evidence in asked]
    assert [reading.text for reading in readings] == [ANSWER, ANSWER]
    assert "".join(emitted) == 2 * ANSWER
    # of the frames alone, also behind a thought
    assert all(abs(sum(reading.weights.values()) - 1) < 1e-5 for reading in readings)
    together = BatchedReader(reader).read(asked, silent)
    assert [reading.text for reading in together] == [ANSWER, ANSWER]


def test_a_thought_is_wanted_or_not():
    """The switch of the template follows the setting, which is off by default."""
    assert load("a switch").prompt.thought.opened is False
    assert load("a switch", enable_thinking=True).prompt.thought.opened is True
    assert load("always").prompt.thought.opened is True
    quiet = load("a switch")
    ids = quiet.prompt.suffix_ids("why?")
    assert quiet.processor.tokenizer.decode(ids).endswith("assistant\n<think></think>")
    assert LlavaOneVision(str(toy_checkpoint())).prompt.thought is None


@pytest.mark.parametrize("most", [0, 2, 100])
def test_a_thought_that_fills_its_room_is_ended(most, monkeypatch):
    backbone = load("always")
    reader = KVReader(backbone, max_new_tokens=4, max_thinking_tokens=most)
    thought = backbone.prompt.ids(THOUGHT)
    lengths = []
    forward = backbone.language_model.forward
    monkeypatch.setattr(
        backbone.language_model,
        "forward",
        lambda embeds, *rest: (lengths.append(len(embeds)), forward(embeds, *rest))[1],
    )
    assert reader.read(group(backbone)[0], silent).text == ANSWER
    suffix = len(backbone.prompt.suffix_ids("Which shape is red?")) + 1  # and the newline
    answer = len(backbone.prompt.ids(f" {ANSWER}"))
    assert lengths == [suffix] + [1] * (min(most, len(thought)) + 1 + answer)
    with pytest.raises(UserError, match="max_thinking_tokens=-1"):
        KVReader(backbone, max_thinking_tokens=-1)


@pytest.mark.parametrize("turn", ["no mark", "always"])
def test_likelihoods_are_read_behind_the_thought(turn):
    backbone = load(turn, enable_thinking=True)
    evidence, prompt = group(backbone)[0], backbone.prompt
    options = [prompt.ids(" red"), prompt.ids(" blue")]
    text = evidence.question.text
    reader = KVReader(backbone)
    found = reader.log_likelihoods(evidence, text, options, silent)
    assert found.values[0] > found.values[1]
    begun = [] if turn == "always" else [prompt.thought.begin]
    behind = [*begun, *prompt.ids(THOUGHT), prompt.thought.end]
    suffix = torch.cat([reader.prompt_suffix(text), backbone.language_model.embed(behind)])
    with reader.context(evidence, len(suffix) + 4, silent) as (cache, _):
        hidden = backbone.language_model.forward(suffix, cache)[-1:]
        after = backbone.language_model.forward(backbone.language_model.embed(options[0]), cache)
        logits = backbone.language_model.logits(torch.cat([hidden, after]))
    wanted = log_likelihood(logits.log_softmax(-1), options[0], prompt.stop_ids())
    assert abs(found.values[0] - wanted) < 1e-3
    batched = BatchedReader(reader).log_likelihoods(
        [evidence, evidence], [text, text], [options, options], silent
    )
    assert [each.values for each in batched] == 2 * [found.values]


def test_ask_prints_the_answer_alone(tmp_path, capsys):
    """The command, over a film and a bank. A model without tokens of thoughts is not changed."""
    write_video(tmp_path / "a.mp4", 2, 4)
    path = toy_checkpoint(says=ANSWER, thinks=THOUGHT, turn=ALWAYS)
    given = [
        f"video={tmp_path / 'a.mp4'}", f"bank={tmp_path / 'bank'}", "question=Which shape is red?",
        *toy_parts()[1:], f"backbone.path={path}", "reader.max_new_tokens=2", "format=json",
    ]  # fmt: skip
    assert cli.run("ask", [*given, "+backbone.enable_thinking=true"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["text"] == ANSWER and "star" not in out
