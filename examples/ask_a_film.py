"""Encode a film once, ask two questions, print the answers and where in the film they come from.

    python examples/ask_a_film.py [FILM]

Without FILM the script makes one: 30 seconds with a code card and a red heart. The model that ships
with Reelbank reads such cards and nothing else; guides/real-models.md names models for real films.
"""

import sys
import tempfile
from pathlib import Path

from memory.schema import Question
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
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
    """Ingest, then ask."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(sys.argv[1]) if sys.argv[1:] else Path(folder) / "film.mp4"
        if not sys.argv[1:]:
            make_film(film)
        settings = compose("ingest", [f"video={film}", f"bank={folder}/bank"])
        backbone = build_backbone(settings)
        source = build_source(settings, backbone)
        qa = build_qa(settings, backbone)
        with qa.bank:
            report = qa.ingest(source)
            print(f"encoded {report.new_segments} segments, {report.nbytes / 1e6:.1f} MB")
            for text in QUESTIONS:
                answer = qa.ask(Question(text, source.info.video_id))
                spans = ", ".join(f"{start:.0f}-{end:.0f} s" for start, end in answer.spans)
                print(f"{text} {answer.text} ({spans})")


if __name__ == "__main__":
    main()
