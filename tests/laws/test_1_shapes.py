"""Laws 1, 4 and 5 for films of any shape: Qwen's frames keep the proportions of their film.

The models are tiny and random, of the real classes. Float32, 1e-4.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import pytest
import torch
from hydra.utils import get_object

from encoders.errors import UserError
from encoders.models.families.patch_grid import grid_for
from encoders.prefill import WindowPrefill
from encoders.schema import Frames, join_frames, join_tokens
from encoders.sources.live.push_source import PushSource
from encoders.sources.pictures import display_ratio
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.build import build_live, build_qa, build_source
from pipeline.config.compose import compose, options
from tests.support.families import FAMILIES, FPS, backbone_of, folder
from tests.support.records import same
from tests.support.toys import toy_parts
from tests.support.videos import turn, write_video

QUESTION = "Which shape is red?"
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
YAMLS = options("backbone", {"fps": 1.0})


def silent(stage: str):
    return nullcontext()


@pytest.mark.parametrize(
    ("ratio", "grid"),
    [
        (16 / 9, (9, 16)),
        (854 / 480, (9, 16)),
        (1920 / 1088, (9, 16)),
        (4 / 3, (10, 13)),
        (21 / 9, (8, 18)),
        (2.39, (8, 18)),
        (1.85, (9, 16)),
        (1.0, (12, 12)),
        (3 / 4, (13, 10)),
        (9 / 16, (16, 9)),
    ],
)
def test_the_grid_of_a_film(ratio, grid):
    assert grid_for(ratio, 144) == grid


def test_no_grid_has_more_tokens_or_many_fewer():
    for tokens in (1, 2, 7, 36, 144, 300):
        for ratio in np.geomspace(0.02, 50, 41).tolist():
            rows, columns = grid_for(ratio, tokens)
            assert 0.9 * tokens <= rows * columns <= tokens
    # with room for a choice, no usual shape is squeezed by more than a tenth
    for ratio in np.geomspace(9 / 21, 21 / 9, 61).tolist():
        rows, columns = grid_for(ratio, 144)
        assert abs(math.log(columns / rows / ratio)) < math.log(1.1)


@pytest.mark.parametrize("name", sorted(YAMLS))
def test_every_backbone_says_whether_it_keeps_shapes(name):
    """The processors of Qwen, GLM and VideoLLaMA3 keep them, all others squeeze."""
    node = YAMLS[name]
    kept = "squeeze" in node
    families = ("qwen", "glm_vl", "video_llama3")
    assert kept == any(family in node["_target_"] for family in families)
    if kept:
        assert node["squeeze"] is False
        adapter = get_object(node["_target_"])
        config = adapter.published_config(node["path"])
        assert math.prod(adapter.frame_grid(config, node["width"], node["height"])) == 144


def frames_of(size: tuple[int, int], count: int, seed: int = 0) -> Frames:
    width, height = size
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames("toy", pixels, np.arange(count, dtype=np.float64) / FPS)


def evidence(*runs: Run) -> Evidence:
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), runs, none, 0, 1 / FPS)


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("ratio", [9 / 16, 3.0])
def test_logits_of_another_shape_equal_the_librarys(name, ratio):
    family, backbone = FAMILIES[name], backbone_of(name)
    size = backbone.frame_size_for(ratio)
    assert size != backbone.frame_size
    frames = frames_of(size, 8)
    expected, _ = family.reference(backbone, frames, QUESTION)
    prefill = WindowPrefill(backbone, dtype="float32")
    seen = [backbone.encode_frames(frames.part(a, a + 4)) for a in (0, 4)]
    runs = [Run("toy", n, 2 * n, part, prefill(part)) for n, part in enumerate(seen)]
    for reader_class in (TokenReader, KVReader):
        got = reader_class(backbone).logits(evidence(*runs), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)


@pytest.mark.parametrize("name", QWEN)
def test_films_of_two_shapes_in_one_context(name):
    """Each frame keeps its own grid, whichever reader reads it."""
    backbone = backbone_of(name)
    parts = [
        backbone.encode_frames(frames_of(backbone.frame_size_for(ratio), 4, seed))
        for seed, ratio in enumerate((9 / 16, 1.5, 3.0))
    ]
    assert [part.sides is None for part in parts] == [False, True, False]
    joined = join_tokens(parts)
    assert joined.sides.tolist() == [3, 3, 0, 0, 6, 6]
    alone = [backbone.frame_embeds(part) for part in parts]
    whole = backbone.frame_embeds(joined)
    assert torch.equal(whole.pos, torch.cat([each.pos for each in alone]))
    prefill = WindowPrefill(backbone, dtype="float32")
    runs = [Run("toy", n, 2 * n, part, prefill(part)) for n, part in enumerate(parts)]
    read = [reader(backbone).logits(evidence(*runs), silent) for reader in (TokenReader, KVReader)]
    assert torch.allclose(*read, atol=1e-4)
    back = join_tokens([joined.frames(0, 3), joined.frames(3, 6)])
    assert same(back, joined)


# -- banks -----------------------------------------------------------------------------------------


def write_film(path: Path, size: tuple[int, int], **options: Any) -> Path:
    write_video(path, 4, 4, size=size, **options)
    return path


def arguments(name: str, film: Path, bank: Path, *more: str) -> list[str]:
    family = FAMILIES[name]
    settings = {"path": folder(name), "dtype": "float32"} | family.settings
    yaml = {"qwen2_5_vl": "qwen2_5_vl_3b", "qwen3_vl": "qwen3_vl_2b"}[name]
    return [
        f"video={film}", f"bank={bank}", f"question={QUESTION}", f"fps={FPS}", toy_parts()[1],
        f"backbone={yaml}", *(f"++backbone.{key}={value}" for key, value in settings.items()),
        "reader.max_new_tokens=2", *more,
    ]  # fmt: skip


def answers(films: list[Path], bank: Path, *more: str) -> list[tuple[Any, list[Any]]]:
    """For each film the answer and the tokens of its segments, out of one bank."""
    backbone, found = backbone_of("qwen3_vl"), []
    configs = [compose("ask", arguments("qwen3_vl", film, bank, *more)) for film in films]
    qa = build_qa(configs[0], backbone)
    try:
        for config in configs:
            source = build_source(config, backbone)
            qa.ingest(source)
            rows = qa.bank.catalog.segments(source.info.video_id)
            segments = [qa.bank.catalog.read_segment(r.video_id, r.number) for r in rows]
            answer = qa.ask(Question(QUESTION, source.info.video_id))
            found.append((answer, [segment.tokens for segment in segments]))
        assert qa.bank.check.verify() == []
    finally:
        qa.bank.close()
    return found


@pytest.mark.parametrize(
    "compressor",
    [
        "none",
        "compact",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("pool", "framediff")),
    ],
)
def test_one_bank_of_films_of_three_shapes(tmp_path, compressor):
    """Portrait, landscape and wide films are written, resumed, verified and read, compressed or
    not.
    """
    films = [
        write_film(tmp_path / "phone.mp4", (144, 256)),
        write_film(tmp_path / "landscape.mp4", (192, 128)),
        write_film(tmp_path / "wide.mp4", (384, 128)),
    ]
    more = [f"compressor={compressor}", "segmenter.seconds=2"]
    found = answers(films, tmp_path / "bank", *more)
    again = answers(films, tmp_path / "bank", *more, "reader=tokens")
    for (answer, parts), (other, same_parts), side in zip(found, again, (3, 0, 6), strict=True):
        assert answer.frames_read == other.frames_read == 4
        sides = [[] if part.sides is None else part.sides.tolist() for part in parts]
        assert sides == 2 * [2 * [side] if side else []]
        assert all(same(a, b) for a, b in zip(parts, same_parts, strict=True))
        if compressor == "none":
            assert answer.text == other.text


def test_a_film_in_the_models_shape_has_the_bytes_of_before(tmp_path):
    """As squeezed films have them."""
    film = write_film(tmp_path / "a.mp4", (192, 128))
    banks = {}
    for squeeze in ("false", "true"):
        bank = tmp_path / squeeze
        config = compose("ask", arguments("qwen3_vl", film, bank, f"backbone.squeeze={squeeze}"))
        backbone = FAMILIES["qwen3_vl"].load(squeeze=squeeze == "true")
        qa = build_qa(config, backbone)
        qa.ingest(build_source(config, backbone))
        qa.bank.close()
        banks[squeeze] = [path.read_bytes() for path in sorted(bank.rglob("*.safetensors"))]
    assert banks["false"] == banks["true"] and banks["true"]


def test_a_bank_of_squeezed_films_is_refused_with_the_setting_that_opens_it(tmp_path):
    film = write_film(tmp_path / "a.mp4", (144, 256))
    bank = tmp_path / "bank"
    squeezed = FAMILIES["qwen3_vl"].load(squeeze=True)
    config = compose("ask", arguments("qwen3_vl", film, bank, "backbone.squeeze=true"))
    qa = build_qa(config, squeezed)
    qa.ingest(build_source(config, squeezed))
    qa.bank.close()
    config = compose("ask", arguments("qwen3_vl", film, bank))
    with pytest.raises(UserError, match=r"frame_size=96x64 .*: backbone\.squeeze=true$"):
        build_qa(config, backbone_of("qwen3_vl"))


# -- what a film's shape is ------------------------------------------------------------------------


def test_the_shape_of_a_film_is_that_of_the_screen(tmp_path):
    """Pixels that are not square, and a phone that is held upright, count."""
    plain = write_film(tmp_path / "a.mp4", (192, 108))
    assert display_ratio(plain) == pytest.approx(16 / 9)
    wide = write_film(tmp_path / "b.mp4", (144, 112), options={"x264-params": "sar=4/3"})
    assert display_ratio(wide) == pytest.approx(144 / 112 * 4 / 3)
    turn(wide)
    assert display_ratio(wide) == pytest.approx(112 / 144 * 3 / 4)
    data = bytearray(plain.read_bytes())
    first = data.index(b"mdat") + 4
    data[first : first + 200] = bytes(200)
    (tmp_path / "d.mp4").write_bytes(bytes(data))
    assert display_ratio(tmp_path / "d.mp4") == pytest.approx(16 / 9)  # damaged at its beginning
    (tmp_path / "c.mp4").write_text("no film")
    assert display_ratio(tmp_path / "c.mp4") is None
    assert display_ratio(tmp_path / "gone.mp4") is None


def test_a_source_asks_for_the_films_shape(tmp_path):
    film = write_film(tmp_path / "a.mp4", (192, 108))
    turn(film)
    config = compose("ask", arguments("qwen2_5_vl", film, tmp_path / "bank"))
    backbone = backbone_of("qwen2_5_vl")
    (batch, *_) = build_source(config, backbone).frames()
    assert batch.pixels.shape[1:3] == backbone.frame_size_for(9 / 16)[::-1] == (84, 56)
    squeezed = FAMILIES["qwen2_5_vl"].load(squeeze=True)
    (batch, *_) = build_source(config, squeezed).frames()
    assert batch.pixels.shape[1:3] == (56, 84)


def test_a_live_stream_has_the_shape_of_its_first_picture():
    """A phone held upright; when it is turned later, its pictures are squeezed."""
    backbone = backbone_of("qwen2_5_vl")
    source = PushSource("phone", FPS, width=84, height=56)
    source.fit = backbone.frame_size_for
    source.start_clock(0.0)
    for number, (height, width) in enumerate(((160, 90), (160, 90), (90, 160))):
        assert source.push(np.zeros((height, width, 3), dtype=np.uint8), number + 0.5)
    source.close()
    frames = join_frames(list(source.frames()))
    assert frames.pixels.shape == (3, 84, 56, 3)
    assert backbone.encode_frames(frames).sides.tolist() == [3, 3]


def test_a_live_source_of_a_command_fits_only_models_that_keep_shapes(tmp_path):
    given = [f"bank={tmp_path / 'bank'}", "video=tcp://127.0.0.1:9", f"fps={FPS}"]
    config = compose("ingest", given)
    assert build_live(config, backbone_of("qwen3_vl")).fit is not None
    assert build_live(config, backbone_of("llava_ov")).fit is None
