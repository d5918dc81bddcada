"""Encode a film once, ask two questions, print the answers, and cut out the moments behind them.

    python examples/ask_a_film.py [FILM]

Without FILM the script makes one: 30 seconds with a code card and a red heart. The model that ships
with Reelbank reads such cards and nothing else; guides/real-models.md names models for real films.
"""

import sys
import tempfile
from pathlib import Path

import reelbank
from pipeline.needle_world import video as needle_video

QUESTIONS = ("What is the code on the card?", "What color is the heart?")


def make_film(path: Path) -> None:
    """Write 30 seconds of procedural footage with two cards."""
    placed = tuple(
        needle_video.parse(card, seed)
        for seed, card in enumerate(("code:4821@8", "shape:red heart@19"))
    )
    size = (480, 270)
    footage = needle_video.procedural_footage(seed=1, size=size)
    needle_video.write(path, placed, 30.0, footage, size=size)


def main() -> None:
    """Add, ask, and cut."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(sys.argv[1]) if sys.argv[1:] else Path(folder) / "film.mp4"
        if not sys.argv[1:]:
            make_film(film)
        with reelbank.open(Path(folder) / "bank") as bank:
            report = bank.add(film)
            print(f"encoded {report.new_segments} segments, {report.nbytes / 1e6:.1f} MB")
            for text in QUESTIONS:
                answer = bank.ask(text)
                spans = ", ".join(f"{each.start:.0f}-{each.end:.0f} s" for each in answer.spans)
                print(f"{text} {answer.text} ({spans})")
                for span in answer.spans:
                    clip = span.clip(Path(folder) / f"{span.start:.0f}.mkv")
                    print(f"  clip from second {clip.start:.1f} on, {clip.nbytes / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
