"""Which option an answer chooses: awkward answers, and likelihoods against a plain forward pass."""

from pathlib import Path

import pytest
import torch

from encoders.errors import UserError
from memory.schema import Question
from pipeline.batch.option_choice import ByLikelihood, ByParsing, parse, render_prompt
from pipeline.batch.schema import Job
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.parts import instantiate
from pipeline.runtime.stage_timer import StageTimer
from tests.support import films
from tests.support.paths import CONF
from tests.support.toys import toy_parts
from tests.support.videos import write_video

OPTIONS = ("a red car", "a blue car", "no car at all", "a dog")
ANSWERS = [  # what a model says -> the letter, None where it names none
    ("B", "B"),
    ("b", "B"),
    (" (b) ", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("The answer is (B).", "B"),
    ("the answer is b.", "B"),
    ("Answer: B", "B"),
    ("The correct option is D because it barks.", "D"),
    ("B. a blue car", "B"),
    ("B) because it is blue", "B"),
    ("(D) a dog", "D"),
    ("Best option: (C)", "C"),
    ("<think>It could be A. The answer is A? No.</think>\nB", "B"),
    ("thinking without a beginning: A</think>The answer is (C).", "C"),
    ("<think>The answer is (A). But wait", None),
    ("Let me see. Option A looks good at first, but it is not red. So the answer is B.", "B"),
    ("The answer is A. On second thought, the answer is D.", "D"),
    ("<answer>C</answer>", "C"),
    ("Therefore \\boxed{D}.", "D"),
    ('```json\n{"result": "C"}\n```', "C"),
    ("A blue car", "B"),
    ("a blue car.", "B"),
    ("It shows a blue car.", "B"),
    ("The answer is a dog.", "D"),
    ("The answer is a blue car, not a red car.", None),
    ("A dog runs by.", "D"),
    ("I see no car at all", "C"),
    ("It must be (D), I think.", "D"),
    ("Looking at the video, it is B", "B"),
    ("(A) or (B)", None),
    ("E", None),
    ("The answer is (E).", None),
    ("I cannot answer this question.", None),
    ("I'm sorry, but I can't help with that.", None),
    ("A man walks into a bar.", None),
    ("", None),
    ("not in the video", None),
]


@pytest.mark.parametrize(("text", "letter"), ANSWERS)
def test_awkward_answers(text, letter):
    assert parse(text, OPTIONS) == letter


def test_an_option_within_another_is_not_taken_for_it():
    assert parse("It is a red star.", ("star", "red star")) == "B"
    assert parse("It is a star.", ("star", "red star")) == "A"
    assert parse("TRUE", ("TRUE", "FALSE")) == "A"
    assert parse("The statement is false.", ("TRUE", "FALSE")) == "B"
    assert parse("3", ("1", "2", "3")) == "C"
    assert parse("There are 13.", ("1", "3")) is None
    assert parse("yes", ("yes", "yes")) is None


def test_a_prompt_takes_question_and_options_as_they_are():
    job = Job("1", "v", "Is {options} {0}?", ("a {question}", "b\\1"))
    assert (
        render_prompt("{question}\n{options}\n{end}", job)
        == "Is {options} {0}?\nA. a {question}\nB. b\\1\n{end}"
    )
    assert render_prompt("{options_in_brackets}", job) == "(A) a {question}\n(B) b\\1"
    assert render_prompt("{options_in_line}", job) == "A. a {question}; B. b\\1;"


PROMPTS = {  # how benchmarks ask, by their published code
    "video_mme": "Select the best answer to the following multiple-choice question based on the "
    "video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\nWhy?\nA. red\nB. blue\n\n"
    "Answer with the option's letter from the given choices directly.",
    "mlvu": "Why?\n(A) red\n(B) blue\nOnly give the best option.\nBest option: (",
    "cg_bench": "Select the best answer to the following multiple-choice question based on the "
    "video.\nWhy?\nA. red\nB. blue\n"
    "Answer with the option letter only.",
    "ovo_bench": "\nQuestion: Why?\nOptions:\nA. red; B. blue;\n\nRespond only with the letter "
    "corresponding to your chosen "
    "option (e.g., A, B, C). \nDo not include any additional text or explanation in your response.",
    "vnbench": "Why?\nA. red\nB. blue\nAnswer with the option's letter from the given choices "
    "directly.",
    "table": "Why?\nA. red\nB. blue\nAnswer with the option's letter from the given choices "
    "directly.",
}


# known to the prompt, or at all
NO_OPTIONS = ("mf2", "moment_seeker", "rvs", "streaming_bench_proactive", "vue_tr", "x_le_bench")


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (CONF / "annotations").glob("*.yaml"))
)
def test_each_benchmark_is_asked_as_its_own_code_asks(name):
    """Whatever they say: the question and all options are in it."""
    job = Job("1", "v", "Why?", ("red", "blue"))
    prompt = instantiate(
        "option_choice",
        compose("batch", [f"annotations={name}", "option_choice=parse"]).option_choice,
    ).prompt
    text = render_prompt(prompt, job)
    has_no_options = name in NO_OPTIONS
    assert "Why?" in text and "{" not in text
    assert has_no_options or ("red" in text and "blue" in text)
    assert text == PROMPTS.get(name, text)


def test_a_prompt_on_the_command_line_goes_before_the_benchmarks():
    mine = compose(
        "batch",
        ["annotations=mlvu", "option_choice=parse", "option_choice.prompt='Say {question}'"],
    )
    assert instantiate("option_choice", mine.option_choice).prompt == "Say {question}"


def test_yes_and_no_have_initials():
    assert [
        parse(text, ("Yes", "No")) for text in ("Y", "n.", "Yes.", "No, not yet", "A", "maybe")
    ] == [*"ABABA", None]
    assert parse("y", ("yellow", "no")) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: ByLikelihood(prompt="{question}", candidate="word", per_token=False),
            "candidate=word",
        ),
        (
            lambda: ByLikelihood(prompt="{question}", candidate="letter", per_token=False),
            "needs {options}",
        ),
        (lambda: ByLikelihood(prompt="what?", candidate="text", per_token=False), "asks nothing"),
        (lambda: ByParsing(prompt="what?"), "asks nothing"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 10, 5)
    return path


@pytest.mark.parametrize("reader", ["kv", "tokens"])
def test_likelihoods_are_those_of_a_plain_pass(film, tmp_path, reader):
    """Each answer with its end token, one at a time on a fresh cache, so that none affects the
    next.
    """
    config = compose(
        "ask",
        [
            f"video={film}",
            f"bank={tmp_path / 'bank'}",
            "question=x",
            f"reader={reader}",
            *toy_parts(),
        ],
    )
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    words = ["red", "a star and a ring", "4821", "not in the video"]
    model = backbone.language_model
    answers = [backbone.prompt.ids(" " + word) for word in words]
    assert len({len(ids) for ids in answers}) > 1
    with qa.bank:
        qa.ingest(source)
        evidence = qa.bank.recall(
            Question("What?", source.info.video_id), read_tokens=400, kv=qa.answerer.reader.needs_kv
        )
        told, _ = qa.answerer.reader.log_likelihoods(evidence, "What color?", answers, StageTimer())
        open_ended, _ = qa.answerer.reader.log_likelihoods(
            evidence, "What color?", answers, StageTimer(), ends=False
        )
        for ids, both, without in zip(answers, told, open_ended, strict=True):
            tail = torch.cat([qa.answerer.reader.prompt_suffix("What color?"), model.embed(ids)])
            with qa.answerer.reader.context(evidence, len(tail), StageTimer()) as (cache, _):
                logs = model.logits(model.forward(tail, cache)).log_softmax(-1)[-len(ids) - 1 :]
            each = [float(logs[i, token]) for i, token in enumerate(ids)]
            (end,) = backbone.prompt.stop_ids()
            assert without == pytest.approx(sum(each), abs=1e-3)
            assert both == pytest.approx(sum(each) + float(logs[-1, end]), abs=1e-3)


@pytest.mark.slow  # seconds of CPU
def test_choosing_what_the_model_says_cites_what_it_says(tmp_path):
    """If one option is the embedded model's own answer, that option is chosen, from the same
    frames.

    Letters and sums over tokens are scored as configured.
    """
    films.make(tmp_path, 1, 16.0, 6)
    config = compose(
        "ask", [f"video={tmp_path / 'film-00.mp4'}", f"bank={tmp_path / 'bank'}", "question=x"]
    )
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        qa.ingest(source)
        evidence = qa.bank.recall(
            Question("How many stars were shown?", source.info.video_id), read_tokens=400
        )
        said = qa.answerer.reader.read(evidence, StageTimer())
        others = tuple(
            word for word in ("9", "red", "the triangle", "not in the video") if word != said.text
        )
        job = Job("1", "v", "How many stars were shown?", (*others, said.text))
        chosen = ByLikelihood(prompt="{question}", candidate="text", per_token=False)(
            [job], qa.answerer.batched_reader, [evidence], StageTimer()
        )[0]
        assert chosen.reading.text == said.text and chosen.letter == "ABCDE"[len(others)]
        assert (
            len(chosen.scores) == len(job.options) and max(chosen.scores) == chosen.scores[-1] <= 0
        )
        assert chosen.reading.weights.keys() == said.weights.keys()
        assert all(
            chosen.reading.weights[i] == pytest.approx(weight, abs=1e-5)
            for i, weight in said.weights.items()
        )
        mean = ByLikelihood(prompt="{question}", candidate="text", per_token=True)(
            [job], qa.answerer.batched_reader, [evidence], StageTimer()
        )[0]
        assert (
            all(a >= b for a, b in zip(mean.scores, chosen.scores, strict=True))
            and mean.scores != chosen.scores
        )
        letters = ByLikelihood(prompt="{question}\n{options}", candidate="letter", per_token=False)
        assert (
            letters([job], qa.answerer.batched_reader, [evidence], StageTimer())[0].letter
            in "ABCDE"
        )
