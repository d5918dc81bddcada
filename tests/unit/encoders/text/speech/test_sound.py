"""The sound of a video: at the times of its pictures, whatever the container's clock does."""

from pathlib import Path

import numpy as np
import pytest

from encoders.sources.container import inspect
from encoders.text.speech import sound
from tests.support.voices import film_with_sound

RATE = 16_000


def tone(seconds: float, start: float, end: float) -> np.ndarray:
    """[n] int16: silence with a tone from start to end."""
    samples = np.zeros(round(seconds * RATE), np.int16)
    count = round((end - start) * RATE)
    samples[round(start * RATE) :][:count] = (8000 * np.sin(np.arange(count) * 0.3)).astype(
        np.int16
    )
    return samples


def heard(path: Path, start: float, end: float) -> tuple[float, float]:
    """Seconds of video time at which the tone begins and ends."""
    samples = sound.interval(inspect(path), start, end)
    loud = np.flatnonzero(np.abs(samples) > 2000) / sound.RATE + start
    return float(loud[0]), float(loud[-1])


def test_sound_comes_at_its_time(tmp_path: Path) -> None:
    """A tone from 1 s to 2 s, from any beginning."""
    film_with_sound(tmp_path / "a.mp4", tone(4, 1, 2), RATE)
    for start, end in ((0.0, 4.0), (0.5, 2.5), (1.5, 4.0)):
        assert heard(tmp_path / "a.mp4", start, end) == pytest.approx(
            (max(1.0, start), 2.0), abs=0.08
        )


@pytest.mark.parametrize("kind", ["ts", "flv"])
def test_sound_goes_on_behind_a_clock_that_begins_again(tmp_path: Path, kind: str) -> None:
    """Two recordings of 4 s and 6 s, one behind the other in one file."""
    film_with_sound(tmp_path / f"1.{kind}", tone(4, 1, 2), RATE)
    film_with_sound(tmp_path / f"2.{kind}", tone(6, 3, 5), RATE)
    both = tmp_path / f"both.{kind}"
    first, second_file = ((tmp_path / f"{n}.{kind}").read_bytes() for n in (1, 2))
    # a recorder of FLV writes no head again (9 bytes, and 4 of an empty tag)
    both.write_bytes(first + (second_file[13:] if kind == "flv" else second_file))
    facts = inspect(both)
    assert facts.timeline.restarts and facts.duration == pytest.approx(10, abs=0.5)
    second = facts.timeline.parts[1].start
    assert heard(both, 0.0, 4.0) == pytest.approx((1.0, 2.0), abs=0.15)
    assert heard(both, 4.0, 10.0) == pytest.approx((second + 3, second + 5), abs=0.15)
    # from the middle, where decoding begins at a byte
    assert heard(both, second + 4, 10.0) == pytest.approx((second + 4, second + 5), abs=0.15)


def test_sound_goes_on_under_another_number(tmp_path: Path) -> None:
    """As of a broadcaster's advertisements: the numbers (PIDs) of the streams change."""
    film_with_sound(tmp_path / "1.ts", tone(4, 1, 2), RATE)
    numbers = {"mpegts_start_pid": "0x300", "mpegts_pmt_start_pid": "0x1200"}
    film_with_sound(
        tmp_path / "2.ts", tone(6, 3, 5), RATE, muxer=numbers | {"output_ts_offset": "4.4"}
    )
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    facts = inspect(both)
    assert len(facts.streams) == 2
    assert heard(both, 0.0, 4.0) == pytest.approx((1.0, 2.0), abs=0.15)
    assert heard(both, 4.0, 10.0) == pytest.approx((7.0, 9.0), abs=0.15)
    assert heard(both, 8.0, 10.0) == pytest.approx((8.0, 9.0), abs=0.15)


def test_sound_begins_before_pictures_that_come_late(tmp_path: Path) -> None:
    """As players do: their clock begins with the sound."""
    film_with_sound(tmp_path / "a.mkv", tone(4, 1, 2), RATE, late_s=2.0)
    assert inspect(tmp_path / "a.mkv").times[0] == pytest.approx(2.0, abs=0.1)
    assert heard(tmp_path / "a.mkv", 0.0, 4.0) == pytest.approx((1.0, 2.0), abs=0.08)


def test_the_quietest_moment() -> None:
    samples = np.full(16_000, 1000, np.int16)
    # of equal ones the last
    assert sound.pause(samples[:100]) == 0.0 and sound.pause(samples) == pytest.approx(0.85)
    samples[4000:9000] = 3
    assert sound.pause(samples) == pytest.approx((9000 - 2400) / 16_000)
