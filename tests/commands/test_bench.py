"""`reelbank bench`: that it runs and measures what it says, not how fast anything is.

The instrument is checked where it can be. Baselines and our own path agree where the arithmetic is
the same. Counted operations are those that torch counts. A long bank is whole. An arm that does not
fit is left out and named.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.prefill import WindowPrefill
from encoders.schema import Frames, VideoInfo
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Evidence, Hits, Question, Run
from pipeline import cli
from pipeline.answer.reader import KVReader
from pipeline.evaluation.speed import machine, operations
from pipeline.evaluation.speed.baselines import (
    KeptCache,
    TransformersModel,
    WholePrompt,
    fastest_chunk,
)
from pipeline.evaluation.speed.clocks import peak_memory, resident_bytes
from pipeline.evaluation.speed.components import long_banks
from pipeline.evaluation.speed.rounds import Limits, Rounds, question, rotated
from pipeline.evaluation.speed.schema import BenchArm
from pipeline.runtime.stage_timer import StageTimer
from tests.support.records import info, make_video, write_video
from tests.support.toys import toy_checkpoint, toy_frames

ARMS = {"ours, kv", "ours, tokens", "transformers, KV kept", "transformers, whole prompt"}
FILES = {"bench.json", "bench.md", "cost-per-frame.png", "cost-per-question.png", "stages.png"}


@pytest.fixture(scope="module")
def untagged() -> LlavaOneVision:
    """No time tags, because transformers gets none here, and eager, because torch counts single
    operations.
    """
    backbone = LlavaOneVision(str(toy_checkpoint()), time_tags=False, attention="eager")
    backbone.prompt.stop_ids = set  # type: ignore[method-assign]
    return backbone


@pytest.mark.slow
def test_the_smoke_preset_runs_and_measures_every_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run("bench", ["bench_preset=smoke", f"out={tmp_path}"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES  # banks, film and model are gone
    assert all((tmp_path / name).stat().st_size > 5000 for name in FILES if name.endswith(".png"))
    found = json.loads((tmp_path / "bench.json").read_text())
    facts, rows = found["facts"], found["rows"]
    assert (
        facts["torch_threads"] == torch.get_num_threads() and "OMP_WAIT_POLICY" in facts["settings"]
    )
    rounds = facts["config"]["rounds"]
    for length in (8, 24):
        for arm in ARMS:
            own = [row for row in rows if (row.get("arm"), row.get("frames")) == (arm, length)]
            asked, encoded = (
                [row for row in own if row["kind"] == kind] for kind in ("ask", "encode")
            )
            assert len(asked) == rounds * facts["config"]["questions"]
            assert len(encoded) == (rounds if arm in ("ours, kv", "transformers, KV kept") else 0)
            for row in asked + encoded:
                stages = sum(s for name, s in row["stages"].items() if "beside" not in name)
                assert row["cpu_s"] > 0 and stages == pytest.approx(
                    row["wall_s"], rel=0.2, abs=0.02
                ), row
            if arm == "ours, kv":  # with one thread nothing is computed beside
                share = [
                    name
                    for name in encoded[0]["stages"]
                    if "beside" in name and not name.startswith(("decode", "write"))
                ]
                assert (torch.get_num_threads() > 1) == ("tower, beside" in share) == bool(share), (
                    share
                )
            for row in asked:
                rest = row["stages"]["decode"]
                assert (
                    row["first_token_s"] + rest <= row["wall_s"] * 1.001
                    and row["per_token_s"] == rest / 3
                )
            warm = next(row for row in own if row["kind"] == "warm_up")
            assert warm["ask_bytes"] is None or warm["ask_bytes"] >= 0
    kinds = {row["kind"] for row in rows}
    alone = {
        "write",
        "read",
        "index",
        "retriever",
        "together",
        "overhead",
        "long",
        "long_ask",
        "append",
    }
    assert kinds == {"chunk", "rate", "warm_up", "encode", "ask", "file", "operations"} | alone
    # exact up to the switch
    assert all(row["recall"] == 1.0 for row in rows if row["kind"] == "index")
    written = (tmp_path / "bench.md").read_text()
    assert (
        "| 24 | transformers, KV kept |" in written
        and "nan" not in written
        and "ours, tokens" in written
    )
    assert written in capsys.readouterr().out


def test_all_arms_say_the_same_where_the_arithmetic_is_the_same(untagged: LlavaOneVision) -> None:
    """All six frames are in the window and all are read. The arms are the whole prompt, the cache
    at two chunk sizes, and our reader. The cache answers twice: if it were not cropped back, the
    second answer would differ.
    """
    frames = toy_frames(6)
    model = TransformersModel(untagged, new_tokens=8)
    arms: list[BenchArm] = [WholePrompt(model), KeptCache(model, 6), KeptCache(model, 4)]
    for arm in arms:
        arm.encode(frames)
    seen = untagged.encode_frames(frames)
    prefill = WindowPrefill(untagged, window_frames=100, dtype="float32")
    run = Run("toy", 0, 0, seen, prefill(seen))
    reader = KVReader(untagged, max_new_tokens=8)
    said = set[str]()
    for number in (0, 9, 0):  # the random model says something else to the ninth
        texts = []
        for arm in arms:
            texts.append(untagged.prompt.text_of(list(arm.ask(question(number)).ids)).strip())
        none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        texts.append(
            reader.read(
                Evidence(Question(question(number), "toy"), (run,), none, 0, 1.0), StageTimer()
            ).text
        )
        assert len(set(texts)) == 1, texts
        said.add(texts[0])
    assert len(said) == 2  # two questions, two answers: equal constants would prove nothing
    other = KeptCache(model, 6)
    other.encode(toy_frames(6, seed=1))
    assert untagged.prompt.text_of(list(other.ask(question(0)).ids)).strip() not in said


def test_the_fastest_chunk_is_chosen(untagged: LlavaOneVision) -> None:
    chosen, took = fastest_chunk(TransformersModel(untagged, 2), toy_frames(6), [2, 6])
    assert set(took) == {2, 6} and took[chosen] == min(took.values())


def test_operations_are_those_that_torch_counts(untagged: LlavaOneVision) -> None:
    config, frames, held, new = untagged.config, 3, 40, 12
    with FlopCounterMode(display=False) as counted:
        untagged.model.get_video_features(untagged.pixels(toy_frames(frames).pixels)[None])
    assert counted.get_total_flops() == pytest.approx(operations.tower(config, frames), rel=1e-3)
    model = untagged.language_model
    width = model.embed([0]).shape[1]
    cache = model.cache(held + new)
    model.forward(torch.randn(held, width), cache)
    with FlopCounterMode(display=False) as counted:
        hidden = model.forward(torch.randn(new, width), cache)
    # torch multiplies what the mask hides as well
    rectangle = operations.attention(config, new * (held + new))
    assert counted.get_total_flops() == pytest.approx(
        operations.decoder(config, new) + rectangle, rel=1e-3
    )
    model.forward(torch.randn(held, width), filled := model.cache(held + new))
    with FlopCounterMode(display=False) as counted:
        model.prefill(torch.randn(new, width), filled)
    rectangle = operations.attention(config, new * (held + new), prefill_only=True)
    assert counted.get_total_flops() == pytest.approx(
        operations.decoder(config, new, prefill_only=True) + rectangle, rel=1e-3
    )
    with FlopCounterMode(display=False) as counted:
        model.logits(hidden)
    assert counted.get_total_flops() == operations.head(config, new)


def test_pairs_are_counted_one_by_one() -> None:
    assert operations.pairs(5, 7) == sum(7 + i + 1 for i in range(5))
    config = LlavaOneVision(str(toy_checkpoint())).config
    tokens, sink, segment, window = 6, 4, 8, 16
    did = operations.encode_windowed(
        config, 40, tokens=tokens, sink=sink, segment=segment, window=window
    )
    by_hand = 0
    for frame in range(40):
        first = frame // segment * segment
        for token in range(tokens):
            by_hand += sink + min(first, window) * tokens + (frame - first) * tokens + token + 1
    assert did.attention == operations.attention(config, by_hand, prefill_only=True)
    assert operations.encode_growing(config, 40, tokens=tokens, sink=sink).attention > did.attention


@pytest.mark.parametrize(
    ("limits", "why"),
    [(Limits(0.0, 1e12), "above round_seconds=0"), (Limits(1e9, -1.0), "above memory_mb=")],
    ids=["time", "memory"],
)
def test_an_arm_that_does_not_fit_is_left_out_and_named(
    untagged: LlavaOneVision, limits: Limits, why: str
) -> None:
    model = TransformersModel(untagged, 2)
    run = Rounds(1, 1, limits)
    for count in (2, 4, 8):
        run.measure(toy_frames(count), [KeptCache(model, 2)])
    gone = [row for row in run.rows if row["kind"] == "left_out"]
    assert [row["frames"] for row in gone] == [4, 8] and all(why in row["why"] for row in gone)
    assert gone[0]["why"] == gone[1]["why"]  # the reason stays that of the length before


def test_another_arm_goes_first_each_round(untagged: LlavaOneVision) -> None:
    arms = [KeptCache(TransformersModel(untagged, 2), 2, name) for name in "abc"]
    assert ["".join(arm.name for arm in rotated(arms, n)) for n in range(4)] == [
        "abc",
        "bca",
        "cab",
        "abc",
    ]
    assert len({question(n) for n in range(500)}) == 500


def test_peak_memory_is_seen() -> None:
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    with peak_memory(before) as most:
        held = torch.ones(8 << 20)  # 32 MB
        del held
    assert most.nbytes is None or 30e6 < most.nbytes < 200e6


def test_a_grown_bank_is_whole_and_can_be_asked_and_continued(tmp_path: Path) -> None:
    pattern = make_video("short", 3, frames=4)
    made_with: dict[str, str | int | float | None] = {"model": "m"}
    frames = long_banks.grow(
        tmp_path, made_with, pattern, VideoInfo("long", "x", 100.0, "none"), 100.0, 1.0
    )
    assert frames == 100
    with MemoryBank.open(tmp_path, made_with, UniformRetriever(), recent_frames=1) as bank:
        assert bank.check.verify() == []
        rows = bank.catalog.segments("long")
        assert [row.start for row in rows] == [4.0 * i for i in range(25)]
        evidence = bank.recall(Question("anything", "long"), read_tokens=20)
        assert evidence.frame_count and {run.first for run in evidence.runs} <= set(range(100))
        assert bank.catalog.read_segment("long", 24).kv is not None
        clips = torch.cat([bank.catalog.read_segment("long", n).clip for n in (0, 3, 6)])
        assert len(torch.unique(clips, dim=0)) == len(clips)  # repeated, but not found alike
        assert bank.catalog.next("long") == (25, 100.0)
        write_video(bank, make_video("other", 1))
        assert bank.catalog.video(info("other").video_id) is not None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("part=nothing", "part=nothing is not known; use one of arms, store, all"),
        ("rounds=0", "rounds=0 is too small; use 1 or more"),
        ("new_tokens=1", "new_tokens=1 is too small; use 2"),
        ("lengths=[]", "lengths=[] leaves nothing"),
        ("lengths=[0]", "not above 0"),
        ("plain=[vllm]", "has no baseline 'vllm'"),
        ("chunk_frames=[]", "chunk_frames="),
        ("video=nowhere.mp4", "nowhere.mp4"),
        ("bench_preset=large", "bench_preset=large is not there"),
        ("rounds=many", "rounds"),
        ("~made.text", "exactly two parts"),
        ("+made.text.vocab_size=3", "vocab_size=3 is below"),
        ("made.vision.hidden_size=33", "gives no model"),
        ("+made.text.nix=1", "made.text.nix is not a setting of Qwen2Config"),
        ("backbone.dtype=float8", "float8"),
        ("format=xml", "format=xml"),
        (
            "index_kinds=[cats]",
            "index_kinds= has 'cats', which is not known; use film, random, clip512, siglip768",
        ),
        ("index_frames=1", "index_frames=1 is too small; use 2"),
        ("film_width=8", "film_width=8"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, override: str, words: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as told:
        cli.run("bench", ["bench_preset=smoke", f"out={out}", override])
    assert words in str(told.value)
    assert not out.exists() or not list(out.iterdir())  # nothing half-written


def test_what_was_measured_before_it_was_stopped_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def stop(*args: object) -> tuple[float, float]:
        begun.append(args)
        if len(begun) > 2:  # two kinds of numbers in the first round
            raise KeyboardInterrupt
        return 1.0, 1.0

    monkeypatch.setattr(machine, "matmul_rate", stop)
    with pytest.raises(KeyboardInterrupt):
        cli.run("bench", ["bench_preset=smoke", "part=arms", "plain=[]", f"out={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["bench.unfinished.json"]
    rows = json.loads((tmp_path / "bench.unfinished.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["warm_up", "warm_up", "rate", "encode"]


@pytest.mark.slow  # seconds of CPU
def test_an_arm_with_another_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="changes the backbone"):
        cli.run(
            "bench",
            [
                "bench_preset=smoke",
                "part=arms",
                f"out={tmp_path}",
                "+ours.other=['backbone.dtype=bfloat16']",
            ],
        )


def test_frames_of_a_file_and_a_length_that_it_does_not_have(tmp_path: Path) -> None:
    from pipeline.evaluation.speed import ready_frames

    ready_frames.write_film(tmp_path / "a.mp4", 3, (64, 64), fps=4)
    with pytest.raises(UserError, match="gives 3 frames, and lengths= asks for 24"):
        cli.run(
            "bench",
            [
                "bench_preset=smoke",
                "part=arms",
                f"out={tmp_path / 'out'}",
                f"video={tmp_path / 'a.mp4'}",
            ],
        )


def test_ready_frames_restart_anywhere() -> None:
    from pipeline.evaluation.speed.ready_frames import ReadyFrames, noise_frames

    frames = noise_frames(40, 2.0, (32, 32))
    source = ReadyFrames(frames, 2.0)
    again = [batch for batch in source.frames(7.0)]
    assert again[0].times[0] == 7.0 and sum(map(len, again)) == 40 - 14
    assert isinstance(again[0], Frames) and source.info.duration == 20.0
    assert (noise_frames(4, 2.0, (32, 32), first=10).pixels == frames.pixels[10:14]).all()
