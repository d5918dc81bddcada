"""What a command line means: texts and paths as they stand, times in one grammar, ~ as the home.

Whatever Hydra's grammar would read otherwise arrives unchanged, or is refused in one sentence.
"""

import os
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from pipeline.config.compose import compose, to_yaml
from pipeline.config.default_bank import default_bank
from pipeline.config.units import parse_seconds

TEXTS = [
    '"hours opening"',  # the quotes are the phrase
    "'a'",
    '"',
    "'",
    "'a' and 'b'",
    '"it\'s"',
    "???",
    "???.mp4",
    "null",
    "true",
    "12",
    "",
    " ",
    "~fps",
    "+fps=1",
    "fps=2",
    "a=b=c",
    "[a,b]",
    "{a: b}",
    "a,b",
    "${fps}",
    "\\${fps}",
    "\\",
    "a\\",
    "\\'",
    "glob(*)",
    "choice(a,b)",
    "@x",
    "a:b",
    "http:x.mp4",
    "#",
    "%s %d",
    "a\nb",
    "a\tb",
    "a\x01\x02\x1b[31m\x7fb",
    "\ufeffa",
    "\u2028",
    "\U0001f600 \u0627\u0644 \u4e2d",
]


KEYS = ("shard", "action", "bank", "jobs", "out", "videos", "downloads")  # texts of a batch


def taken(texts: Sequence[str]) -> list[str]:
    """The texts as a command gets them, several in one: composing takes a quarter second."""
    keys = KEYS[: len(texts)]
    given = [f"{key}={text}" for key, text in zip(keys, texts, strict=True)]
    config = compose("batch", given)
    return [getattr(config, key) for key in keys]


@pytest.mark.parametrize("texts", [TEXTS[i::6] for i in range(6)])
def test_texts_and_paths_are_taken_as_they_stand(texts: list[str]) -> None:
    assert taken(texts) == texts


@settings(max_examples=4, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(
            lambda text: not text.startswith("~")
        ),
        min_size=7,
        max_size=7,
    )
)
def test_any_text_is_taken_as_it_stands(texts: list[str]) -> None:
    """But an empty bank= means the usual one."""
    expected = list(texts)
    expected[KEYS.index("bank")] = expected[KEYS.index("bank")] or default_bank()
    assert taken(texts) == expected


def test_a_question_a_query_and_a_key_are_texts() -> None:
    assert compose("ask", ["++question='a'", "began=~x"]).question == "'a'"
    assert compose("find", ['query="hours opening"']).query == '"hours opening"'
    assert compose("serve", ["api_key=[a,'b"]).api_key == "[a,'b"
    assert "question: ???" in to_yaml("ask", ["question=???"])


def test_paths_and_prompts_of_parts_are_taken_as_they_stand() -> None:
    texts = ("/a b/c,{d}/été:(x)", "What, exactly? [1]", "/a=b")
    config = compose(
        "ingest",
        [
            f"backbone.path={texts[0]}",
            "text=[captions,asr]",
            f"text.captions.prompt={texts[1]}",
            f"text.asr.path='{texts[2]}'",  # as before
        ],
    )
    found = (config.backbone["path"], config.text["captions"]["prompt"], config.text["asr"]["path"])
    assert found == texts


def test_items_of_a_list_are_taken_as_they_stand() -> None:
    items = ["2026-11-20T12:00:00.mp4", "été.mp4", "a b.mp4", "#1.mp4", "~x", "null", "1"]
    assert compose("needle", [f"haystack=[{', '.join(items)}]"]).haystack == items
    quoted = ", ".join(f"'{item}'" for item in items if item.isascii())
    assert len(compose("needle", [f"haystack=[{quoted}]"]).haystack) == len(items) - 1


def test_the_last_of_two_texts_counts() -> None:
    assert compose("ask", ["question=???", "question=b"]).question == "b"
    assert compose("ask", ["question=b", "question=???"]).question == "???"


@pytest.mark.parametrize("key", ["question", "began"])
@pytest.mark.parametrize("value", ["caf\udce9", "\udcff", "half \ud83d emoji", "\udc00"])
def test_bytes_that_are_no_text_are_refused_in_a_text(key: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{key}= has a byte that is not UTF-8") as refused:
        compose("ask", [f"{key}={value}"])
    str(refused.value).encode()  # the sentence can be printed


def test_bytes_that_are_no_text_may_stand_in_a_path() -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    assert compose("ask", [f"video={name}"]).video == name
    with pytest.raises(UserError, match="video= has a byte"):
        compose("ask", ["video=\ud83d.mp4"])  # no name of a file can be that


PATHS = {
    "ask": ("video", "bank"),
    "find": ("bank", "video", "out"),
    "bank": ("bank", "video"),
    "batch": ("jobs", "out", "videos", "downloads", "bank"),
    "needle": ("out", "predictions"),
    "demo": ("bank", "files", "keys", "audit", "streams"),
    "bench": ("work", "video", "out"),
}


@pytest.mark.parametrize("task", PATHS)
def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    config = compose(task, [f"{key}=~/{key}" for key in PATHS[task]])
    for key in PATHS[task]:
        assert getattr(config, key) == f"/home/ann/{key}"


def test_a_name_with_a_tilde_elsewhere_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    names = ["~/x", "~", "./~/x", "x~", "a/~/b", "~nobody-of-this-name/x"]
    assert taken(names)[2:] == names[2:]  # the first two are no paths
    assert taken(["", "", *names[:2]])[2:] == ["/home/ann/x", "/home/ann"]


def test_paths_in_lists_and_parts_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert compose("needle", ["haystack=[~/a.mp4,b.mp4]"]).haystack == ["/home/ann/a.mp4", "b.mp4"]
    assert compose("batch", ["runs=[~/a,~/b]"]).runs == ["/home/ann/a", "/home/ann/b"]
    config = compose(
        "ingest",
        [
            "backbone.path=~/qwen",
            "clip.model=local-dir:~/clip",
            "text=[subtitles,asr]",
            "text.subtitles.path=~/a.srt",
            "text.asr.path=~/whisper",
            "dense=minilm",
            "dense.path=~/minilm",
        ],
    )
    assert config.backbone["path"] == "/home/ann/qwen"
    assert config.clip["model"] == "local-dir:/home/ann/clip"
    assert config.text["subtitles"]["path"] == "/home/ann/a.srt"
    assert config.text["asr"]["path"] == "/home/ann/whisper"
    assert config.dense["path"] == "/home/ann/minilm"
    assert compose("ask", ["question=~/x"]).question == "~/x"  # no path


TIMES = [
    ("00:01", 1.0),
    ("1:00", 60.0),
    ("1:02:03", 3723.0),
    ("0:00:01.5", 1.5),
    ("90", 90.0),
    ("1e2", 100.0),
    ("+5", 5.0),
    ("1:99", 159.0),
]


NO_TEXT = {
    "an empty list": ["text=[]"],
    "with a blank": ["text=[ ]"],
    "after a choice": ["text=subtitles", "text=[]"],
    "by name": ["text=none"],
}


@pytest.mark.parametrize("how", NO_TEXT)
@pytest.mark.parametrize("task", ["ask", "ingest", "find", "demo"])
def test_no_extractor_is_a_choice(task: str, how: str) -> None:
    common = {"ask": ["video=a", "question=q"], "ingest": ["video=a"], "find": ["query=q"]}
    assert compose(task, [*common.get(task, []), *NO_TEXT[how]]).text == {}  # type: ignore[attr-defined]


def test_a_choice_after_an_empty_list_counts() -> None:
    chosen = compose("ingest", ["video=a", "text=[]", "text=[subtitles]"])
    assert list(chosen.text) == ["subtitles"]


@pytest.mark.parametrize("task", ["ask", "find", "bank"])
def test_a_time_is_seconds_or_minutes_or_hours(task: str) -> None:
    keys = ("start", "end", "asked_at")[: 2 if task == "bank" else 3]
    times = TIMES if task == "ask" else TIMES[:3]
    for i in range(0, len(times), len(keys)):
        some = dict(zip(keys, times[i:], strict=False))
        config = compose(task, [f"{key}={text}" for key, (text, _) in some.items()])
        assert {key: getattr(config, key) for key in some} == {
            key: seconds for key, (_, seconds) in some.items()
        }


def test_no_time_stays_none() -> None:
    config = compose("ask", ["end=null", "asked_at=null"])
    assert (config.end, config.asked_at) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "abc", "1:", ":1", "1:2:3:4", "1:-2", "-1:00", "5,6", "[1]", "1m", "1:nan", "a:b"]
)
def test_what_is_no_time_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no time; give seconds, mm:ss or hh:mm:ss"):
        compose("ask", [f"start={text}"])


def test_a_batch_reads_times_alike() -> None:
    for text, seconds in TIMES:
        assert parse_seconds("start", text) == seconds
    assert parse_seconds("start", 90) == 90.0


REFUSED = {
    "deleted setting": ("ask", "~fps", "~fps takes fps away"),
    "deleted value": ("ask", "~fps=1.0", "takes fps away"),
    "deleted part": ("ask", "~backbone", "takes backbone away"),
    "deleted text": ("ask", "~question", "takes question away"),
    "deleted stranger": ("ask", "~nix", "nix"),
    "nothing deleted": ("ask", "~", "Could not delete ''"),
    "deleted key of a part": ("ask", "~backbone.nix", "nix"),
    "added once more": ("ask", "+fps=2", "fps"),
    "added": ("ask", "+x=1", "x= is no setting"),
    "added by force": ("ask", "++x=1", "x= is no setting"),
    "plus behind": ("ask", "fps+=1", "fps+=1"),
    "two plus behind": ("ask", "fps++=1", "fps++=1"),
    "three plus": ("ask", "+++fps=1", "+++fps=1"),
    "package": ("ask", "fps@a=1", "fps@a=1"),
    "package of a part": ("ask", "backbone@x=embedded", "backbone"),
    "at alone": ("ask", "@", "@"),
    "at before": ("ask", "@fps=1", "@fps=1"),
    "blank in a key": ("ask", "fps =1", "fps"),
    "slash": ("ask", "a/b=c", "a/b"),
    "colon": ("ask", "backbone:x=y", "backbone:x=y"),
    "control letter in a number": ("ask", "fps=\x01", "fps"),
    "control letter in a key": ("ask", "f\x01ps=1", "cannot be read"),
    "byte in a key": ("ask", "caf\udce9=1", "cannot be read"),
    "byte in a number": ("ask", "fps=\udce9", "fps"),
    "BOM before a key": ("ask", "\ufefffps=1", "cannot be read"),
    "empty": ("ask", "", ""),
    "blank": ("ask", " ", ""),
    "only =": ("ask", "=", "Could not override ''"),
    "dots": ("ask", "...=1", "..."),
    "deep key": ("ask", "backbone.a.b.c=1", "backbone"),
    "dict for a number": ("ask", "fps={a:1}", "fps"),
    "function": ("ask", "fps=range(1,3)", "fps"),
    "interpolation of nothing": ("ask", "fps=${nix}", "nix"),
    "unknown resolver": ("ask", "fps=${nix:1}", "nix"),
    "environment": ("ask", "fps=${oc.env:NO_SUCH_VARIABLE_AT_ALL}", "NO_SUCH_VARIABLE_AT_ALL"),
    "itself": ("ask", "fps=${fps}", "fps"),
    "missing number": ("ask", "fps=???", "fps"),
    "missing part": ("ask", "backbone=???", "backbone"),
    "empty part": ("ask", "backbone=", "backbone"),
    "hydra's own": ("ask", "hydra.run.dir=x", "hydra"),
    "list for a text part": ("ask", "backbone=[a,b]", "backbone"),
    "sweep": ("ask", "retriever=clip,kv", "retriever"),
    "half a quote": ("ask", "fps='1", "fps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_grammar_cannot_read_is_one_sentence(name: str) -> None:
    task, override, words = REFUSED[name]
    with pytest.raises(UserError) as refused:
        compose(task, [override])
    assert words in str(refused.value), refused.value
    assert len(str(refused.value).splitlines()) == 1


def test_an_arm_may_be_deleted() -> None:
    assert "kv" not in compose("needle", ["~arms.kv"]).arms


def test_an_arm_whose_name_has_blanks_or_commas_may_be_deleted() -> None:
    """Hydra's grammar has no form for them."""
    given = ["preset=keys", "~arms.mean key, soft vote", "~arms.last token", "~arms.hadamard"]
    arms = compose("needle", given).arms
    assert {"mean key", "mean key, cosine", "kmeans, soft vote"} < arms.keys()
    assert not {"mean key, soft vote", "last token", "hadamard"} & arms.keys()
    with pytest.raises(
        UserError, match=r"~arms\.mean kay takes nothing away: arms has 'clip', 'mean"
    ):
        compose("needle", ["preset=keys", "~arms.mean kay"])


def test_an_arm_is_deleted_with_its_dial_and_its_paper() -> None:
    """In both forms of a name, and also where the line deletes a dial or a paper itself."""
    gone = {"int8", "int4", "fewer frames", "kv kmeans"}
    further = ["~dials.int8", "~papers.int4", "~dials.fewer frames"]
    whole = compose("needle", ["preset=methods"])
    assert gone - {"kv kmeans"} <= whole.dials.keys() and gone <= whole.papers.keys()
    left = compose("needle", ["preset=methods", *further, *(f"~arms.{name}" for name in gone)])
    assert left.arms.keys() == whole.arms.keys() - gone
    assert left.dials.keys() == whole.dials.keys() - gone
    assert left.papers.keys() == whole.papers.keys() - gone
    alone = compose("needle", ["preset=methods", "~dials.int8"])  # the arm stays
    assert "int8" in alone.arms and "int8" in alone.papers and "int8" not in alone.dials
