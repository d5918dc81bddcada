"""Frames in a second size: made by sources for embedders that ask, and by nobody else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.detail import ask_for_detail
from encoders.schema import Frames, join_frames
from encoders.sources.file import FileSource
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.push_source import PushSource
from encoders.sources.pictures import pictures_at
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support.toys import toy_parts
from tests.support.videos import write_video


class Sums:
    """An embedder of two numbers that asks for detail, and keeps the shapes that it gets."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.detail_size = size
        self.shapes: list[tuple[int, ...]] = []

    def embed_frames(self, frames: Frames) -> torch.Tensor:
        pixels = frames.pixels if frames.detail is None else frames.detail
        self.shapes.append(pixels.shape[1:3])
        return torch.ones(len(frames), 2) / 2**0.5

    def embed_text(self, text: str) -> torch.Tensor:
        return torch.ones(2) / 2**0.5

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.ones(len(texts), 2) / 2**0.5

    def fingerprint(self) -> str:
        return "sums"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 5, 5)
    return path


def source(film: Path) -> FileSource:
    return FileSource(film, width=20, height=10)


def test_a_file_gives_each_picture_twice(film: Path) -> None:
    plain = join_frames(list(source(film).frames()))
    detailed = source(film)
    ask_for_detail(detailed, [Sums((40, 30)), Sums((30, 60))])
    frames = join_frames(list(detailed.frames()))
    assert plain.detail is None and np.array_equal(frames.pixels, plain.pixels)
    assert frames.detail is not None and frames.detail.shape == (5, 60, 40, 3)
    expected = list(pictures_at(film, frames.times.tolist(), (40, 60)))
    assert np.array_equal(frames.detail, np.stack([one for one in expected if one is not None]))
    part = frames.part(1, 3)
    assert part.detail is not None and np.array_equal(part.detail, frames.detail[1:3])


def test_frames_that_are_large_enough_come_alone(film: Path) -> None:
    one = source(film)
    one.add_detail((20, 8))
    assert all(frames.detail is None for frames in one.frames())


def test_a_run_has_detail_if_all_its_parts_have(film: Path) -> None:
    one = source(film)
    one.add_detail((40, 30))
    (frames,) = one.frames()
    bare = Frames(frames.video_id, frames.pixels, frames.times)
    assert join_frames([frames.part(0, 2), bare.part(2, 5)]).detail is None
    with pytest.raises(ValueError, match="2 frames with 5 times"):
        Frames("a", frames.pixels, frames.times, detail=bare.pixels[:2])


def test_live_sources_do_the_same(film: Path) -> None:
    played = FilePlayback(source(film), float("inf"))
    ask_for_detail(played, [Sums((40, 30))])
    assert all(
        frames.detail is not None and frames.detail.shape[1:] == (30, 40, 3)
        for frames in played.frames()
    )
    pushed = PushSource("camera", width=20, height=10)
    pushed.add_detail((40, 30))
    pushed.start_clock(0.0)
    assert pushed.push(np.full((90, 120, 3), 7, np.uint8), 0.0)
    frames = next(pushed.frames())
    assert frames.pixels.shape == (1, 10, 20, 3)
    assert frames.detail is not None and frames.detail.shape == (1, 30, 40, 3)


def test_an_embedder_that_asks_gets_detail_and_the_backbone_the_same_as_ever(
    film: Path, tmp_path: Path
) -> None:
    def segment_files(bank: Path, embedder: Sums) -> list[bytes]:
        own = compose("ingest", [f"video={film}", f"bank={bank}", "text=none", *toy_parts()])
        backbone = build_backbone(own)
        qa = build_qa(own, backbone, embedder)
        with qa.bank:
            qa.ingest(build_source(own, backbone))
        return [path.read_bytes() for path in sorted(bank.rglob("*.safetensors"))]

    small, large = Sums((1, 1)), Sums((64, 80))
    first, second = segment_files(tmp_path / "a", small), segment_files(tmp_path / "b", large)
    assert set(large.shapes) == {(80, 64)} != set(small.shapes)
    assert first and first == second
