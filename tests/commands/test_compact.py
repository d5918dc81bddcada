"""`experiment=compact` as a command on a real file, with the embedded models: its bytes on disk.

The test counts every file in the bank's folder except the catalog and the index. Both are the same
in every bank with as many frames, and both can be rebuilt from the rest. The comparison is with
bfloat16 keys and values of all time tags and of all visual tokens before compression.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.build import build_backbone
from pipeline.cli import run
from pipeline.config.compose import compose
from pipeline.evaluation import throughput
from pipeline.evaluation.bank_sizes import SETTINGS, SettingResult, Size, sizes_of, table
from pipeline.needle_world import video as haystack
from pipeline.needle_world.cards import Needle
from pipeline.needle_world.scoring import ScoredAnswer, cites_all
from pipeline.scoring import difference, is_right

SECONDS = 64
SCENE = [Needle("name", "Olivia"), Needle("icon", "key")]


@pytest.fixture(scope="module")
def video(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, tuple[haystack.PlacedNeedle, ...]]:
    path = tmp_path_factory.mktemp("compact") / "cards.mp4"
    shown = haystack.plan(np.random.default_rng(99), SCENE, float(SECONDS))
    haystack.write(
        path, shown, float(SECONDS), haystack.procedural_footage(99, (320, 180)), size=(320, 180)
    )
    return path, shown


@pytest.mark.slow  # seconds of CPU
def test_compact_answers_from_a_sixteenth_of_the_bytes(video, tmp_path, capsys):
    path, shown = video
    bank = tmp_path / "bank"
    question = "question=What is the secret word?"
    assert (
        # rows of conse, where its extra is installed, are no part of what compact makes smaller
        run(
            "ask",
            [
                f"video={path}",
                f"bank={bank}",
                question,
                "experiment=compact",
                "format=json",
                "clip=embedded",
            ],
        )
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert is_right(answer["text"], "Olivia") and cites_all(answer["spans"], [shown[0]]) is True
    files = {str(p.relative_to(bank)): p.stat().st_size for p in bank.rglob("*") if p.is_file()}
    counted = sum(
        size for name, size in files.items() if not name.startswith(("catalog.sqlite", "index/"))
    )
    backbone = build_backbone(compose("ask", ["video=-", "question=-"]))
    (size,) = sizes_of(bank, backbone)
    shape = backbone.language_model.kv_shape
    assert (size.name, size.frames) == (path.stem, SECONDS)
    assert (
        size.plain
        == SECONDS
        * (backbone.tokens_per_frame + 2)
        * 2
        * 2
        * shape.layers
        * shape.heads
        * shape.width
    )
    assert size.stored < counted <= size.plain / 16, files


@pytest.mark.slow
def test_other_settings_are_refused(video, tmp_path, capsys):
    """Also the dial alone: an int8 bank is no int4 bank."""
    stored = r"quantisation=kv=int4, keys=causal, tokens=int4, window=32 \(this run: kv=int8, "
    with pytest.raises(Exception, match=stored):
        common = [f"video={video[0]}", f"bank={tmp_path}/bank", "end=3", "experiment=compact"]
        assert run("ingest", common) == 0
        run("ingest", [*common, "kv_dtype=int8"])


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_table_compose(name):
    config = compose("ask", ["video=-", "question=-", *SETTINGS[name]])
    assert (config.kv_dtype, config.token_dtype) != (None, None)


def test_the_table_has_a_line_for_each_setting():
    """Bytes over all videos, and the worst of them beside it."""
    right = {
        "kv": [ScoredAnswer("a", "code", True, None, [])],
        "tokens": [ScoredAnswer("a", "code", False, None, [])],
    }
    sizes = [Size("small", 10**6, 4 * 10**7, 60), Size("large", 3 * 10**6, 4 * 10**7, 60)]
    row = SettingResult(sizes, 1.0, [0.01, 0.02], right, (1.0, 2.0), (3.0, 4.0))
    lines = table({"bf16": row, "int8": replace(row, fps=2.0)})
    assert (
        len(lines) == 4
        and "| int8 | 240.0 | 1/20.0 (1/13.3: large) | 1.00 2.00 | 100.0 (" in lines[3]
    )
    assert "n=1 | - | 0.0 (" in lines[2] and "n=1 | +0.0 (+0.0 to +0.0) | 0.0 (" in lines[3]
    assert {line.count("|") for line in lines} == {11}


@pytest.mark.parametrize(
    "arguments",
    [["video=gone.mp4"], ["pairs=0", "video=gone.mp4"], ["video=gone.mp4", "kv_dtype=int3"]],
)
def test_throughput_tells_mistakes_in_one_sentence(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["throughput", *arguments])
    with pytest.raises(SystemExit) as done:
        throughput.main()
    assert done.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("reelbank: ") and err.count("\n") == 1


def test_pairs_are_compared_as_pairs():
    before = [("a", True), ("a", False), ("b", True), ("c", True)]
    assert difference(before, before)[:3] == (0.0, 0.0, 0.0)
    after = [("a", True), ("a", True), ("b", True), ("c", False)]
    mean, low, high, count = difference(after, before)
    assert mean == 0.0 and low < 0 < high and count == 4
    with pytest.raises(ValueError, match="different questions"):
        difference(after[1:], before)
