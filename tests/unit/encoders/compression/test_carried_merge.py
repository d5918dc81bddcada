"""What a still camera costs once whole frames are carried from segment to segment."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encoders.compression.carried_merge import CarriedMerge
from encoders.compressors import Chain, Merge, Shrink
from encoders.encoder import Encoder
from encoders.models.clip import NoFrameEmbedder
from encoders.prefill import NoPrefill
from encoders.schema import CarriedFrame, Segment, VisualTokens, join_tokens
from memory.storage.segments import segment_file
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.runtime.stage_timer import StageTimer
from tests.support.records import make_segment, same
from tests.support.toys import toy_backbone, toy_frames

TOKENS, LENGTH = 6, 4  # of a frame; frames of a segment


def scenes(frames: int, starts: list[int]) -> VisualTokens:
    """Frames of 2 x 3 tokens; a new scene begins at each of these frames, else little changes."""
    make = torch.Generator().manual_seed(0)
    tokens, now = [], torch.zeros(TOKENS, 16)
    for t in range(frames):
        now = torch.randn(TOKENS, 16, generator=make) if t in starts else now
        tokens.append(now + 0.01 * torch.randn(TOKENS, 16, generator=make))
    pos = torch.cartesian_prod(torch.arange(frames), torch.arange(2), torch.arange(3)).int()
    times = torch.arange(frames, dtype=torch.float64)
    return VisualTokens(torch.cat(tokens), pos, torch.arange(frames + 1) * TOKENS, times)


def compressed(
    compressor: CarriedMerge, film: VisualTokens, stored: Path | None = None
) -> list[VisualTokens]:
    """The film in segments, each behind the one before. stored: a file through which the state
    goes between two segments."""
    carried, parts = None, []
    for first in range(0, len(film.times), LENGTH):
        if stored is not None and carried is not None:
            own = replace(make_segment(), carried=carried)
            carried = segment_file.read_carried(write(stored, own))
        part, carried = compressor.carry(film.frames(first, first + LENGTH), carried)
        parts.append(part)
    return parts


def write(path: Path, segment: Segment, how: StorageFormat = segment_file.LOSSLESS) -> Path:
    path.write_bytes(segment_file.pack(segment, how))
    return path


@pytest.mark.parametrize("starts", [[0], [0, 5, 6, 13], list(range(20))])
def test_segments_are_as_one_long_segment_merged(starts: list[int]) -> None:
    """The limit case: with a state that never ends, cuts change no token."""
    film = scenes(20, starts)
    got, wanted = join_tokens(compressed(CarriedMerge(segments=100), film)), Merge()(film)
    for name in ("tokens", "pos", "offsets", "times"):
        assert torch.equal(getattr(got, name), getattr(wanted, name))


def test_one_segment_is_merge() -> None:
    film = scenes(20, [0, 5, 6, 13])
    for first, part in enumerate(compressed(CarriedMerge(segments=1), film)):
        assert same(part, Merge()(film.frames(LENGTH * first, LENGTH * (first + 1))))


def test_a_still_camera_stores_a_whole_frame_once_in_so_many_segments() -> None:
    parts = compressed(CarriedMerge(segments=3), scenes(9 * LENGTH, [0]))
    assert [len(part.tokens) for part in parts] == [TOKENS + 3, LENGTH, LENGTH] * 3
    for part in parts:  # a segment can be read alone: its first frame has a time tag
        assert part.repeats is not None and part.repeats.tolist() == [False, True, True, True]


def test_a_cut_brings_a_whole_frame_back_and_begins_anew() -> None:
    parts = compressed(CarriedMerge(segments=3), scenes(6 * LENGTH, [0, 2 * LENGTH + 1]))
    sizes = [[b - a for a, b in part.ranges()] for part in parts]
    assert sizes[1] == [1] * LENGTH and sizes[2] == [1, TOKENS, 1, 1]
    assert sizes[3] == sizes[4] == [1] * LENGTH and sizes[5] == [TOKENS, 1, 1, 1]


def test_a_state_that_was_stored_goes_on_bit_by_bit(tmp_path: Path) -> None:
    film, compressor = scenes(7 * LENGTH, [0, 9]), CarriedMerge(segments=3)
    resumed = compressed(compressor, film, tmp_path / "segment")
    assert all(map(same, resumed, compressed(compressor, film)))


@pytest.mark.parametrize("small", ["int8", "int4"])
def test_a_compacted_segment_keeps_what_it_carries(small: str, tmp_path: Path) -> None:
    _, carried = CarriedMerge().carry(scenes(LENGTH, [0]), None)
    own = replace(make_segment(), carried=carried)
    path = write(tmp_path / "segment", own, StorageFormat(small, small))
    got = segment_file.read(path).carried
    assert got is not None and got.segments == carried.segments == 1
    assert same(got.direction, carried.direction)


def test_it_is_no_part_of_a_chain_and_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="no part of a chain"):
        Chain([Shrink(), CarriedMerge()])
    with pytest.raises(ValueError, match="threshold=2"):
        CarriedMerge(threshold=2)
    with pytest.raises(ValueError, match="segments=0"):
        CarriedMerge(segments=0)


def test_the_state_is_a_direction() -> None:
    _, carried = CarriedMerge().carry(scenes(LENGTH, [0, 2]), CarriedFrame(torch.zeros(16), 1))
    assert carried.direction.dtype == torch.float16 and carried.segments == 1
    torch.testing.assert_close(
        carried.direction.float().norm(), torch.tensor(1.0), atol=1e-3, rtol=0
    )


def test_an_open_segment_of_a_stream_leaves_the_state_as_it_was() -> None:
    """Questions see its frames, compressed behind what came before; it comes again with more."""
    backbone, timer = toy_backbone(), StageTimer()
    frames = [toy_frames(4, first=4.0 * number) for number in range(2)]

    def encoder() -> Encoder:
        compressor = CarriedMerge(threshold=1e-3)
        return Encoder(backbone, compressor, NoPrefill(backbone), NoFrameEmbedder(), 1.0)

    shown, plain = encoder(), encoder()
    for number, own in enumerate(frames):
        before = shown.carry.frame
        opened = shown.encode(own.part(0, 2), number, timer, still_open=True)
        assert shown.carry.frame is before
        whole, alone = (one.encode(own, number, timer) for one in (shown, plain))
        assert same(whole.tokens, alone.tokens) and same(opened.tokens, whole.tokens.frames(0, 2))
        assert shown.carry.frame is whole.carried is not None
        assert (len(whole.tokens.frames(0, 1).tokens) == 1) == bool(number)
