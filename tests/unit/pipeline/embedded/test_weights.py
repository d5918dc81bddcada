"""The embedded models load like any checkpoint, fit into a repository, and read cards in a real
file.

Not a measurement: `python -m pipeline.evaluation.embedded` is. Training did not use the video's
seed.
"""

import copy
import functools
import json

import numpy as np
import pytest

from encoders.models.families.llava_onevision import LlavaOneVision
from pipeline.cli import run
from pipeline.config.task_settings import WEIGHTS
from pipeline.embedded import tokenizer
from pipeline.needle_world import questions
from pipeline.needle_world import video as haystack
from pipeline.needle_world.cards import Needle
from pipeline.needle_world.scoring import cites_all
from pipeline.scoring import is_right

SCENE = [
    Needle("code", "4821"),
    Needle("shape", "star", "green"),
    Needle("name", "Olivia"),
    Needle("icon", "key"),
]
QUESTIONS = [
    ("What is the code on the card?", "4821", 0),
    ("What color is the star?", "green", 1),
    ("What is the secret word?", "Olivia", 2),
    ("Which icon appears in the video?", "key", 3),
    ("What color is the heart?", "not in the video", None),
]


def test_weights_are_safetensors_and_small():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert {"model.safetensors", "open_clip_model.safetensors"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 40 * 2**20
    assert not [file for file in files if file.suffix in (".pt", ".bin", ".pkl")]


def test_the_tokenizer_that_ships_is_the_one_that_is_built():
    built = json.loads(tokenizer.build(questions.corpus()).backend_tokenizer.to_str())
    shipped = json.loads((WEIGHTS / "video_llm" / "tokenizer.json").read_text())
    assert [shipped[part] for part in ("model", "added_tokens")] == [
        built[part] for part in ("model", "added_tokens")
    ]


@pytest.mark.parametrize("seconds, text, tokens", [
    (0, "[00:00]", 2), (3599.9, "[59:59]", 2), (5999, "[99:59]", 2), (6000, "[01:40:00]", 3),
    (100_000, "[27:46:40]", 3),
    (359_999, "[99:59:59]", 3), (360_000, "[6000:00]", 5),
])  # fmt: skip
def test_time_tags_stay_short_for_four_days(seconds, text, tokens):
    found = embedded().prompt.time_tag_ids(seconds)
    assert (embedded().prompt.text_of(found), len(found)) == (text, tokens)


def test_minutes_go_on_where_hours_take_more_tokens(monkeypatch):
    """As with the tokenizers of Qwen, which write digits one by one."""
    other = copy.copy(embedded().prompt)
    monkeypatch.setattr(other, "_time_tag_ids", {})
    monkeypatch.setattr(other, "ids", lambda text: [ord(letter) for letter in text])
    assert bytes(other.time_tag_ids(100_000)) == b"[1666:40]"


@functools.cache
def embedded() -> LlavaOneVision:
    return LlavaOneVision(str(WEIGHTS / "video_llm"), time_tags=True)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded") / "cards.mp4"
    shown = haystack.plan(np.random.default_rng(99), SCENE, 40.0)
    haystack.write(path, shown, 40.0, haystack.procedural_footage(99, (480, 270)), size=(480, 270))
    return path, shown


@pytest.mark.parametrize("reader", ["kv", pytest.param("tokens", marks=pytest.mark.slow)])
def test_cards_are_read_and_cited(video, tmp_path_factory, capsys, reader):
    path, shown = video
    bank = path.parent / "bank"
    right = cited = 0
    for question, truth, needle in QUESTIONS:
        code = run(
            "ask",
            [
                f"video={path}",
                f"question={question}",
                f"bank={bank}",
                f"reader={reader}",
                "text=none",  # the cards are 270 rows high, and would be read
                "format=json",
            ],
        )
        answer = json.loads(capsys.readouterr().out)
        assert code == 0
        right += is_right(answer["text"], truth)
        if needle is None:
            assert answer["shown"] or not answer["spans"]
        else:
            cited += bool(cites_all([tuple(span) for span in answer["spans"]], [shown[needle]]))
    assert right >= 4 and cited >= 3  # of 5 and 4: a model at chance gets none
