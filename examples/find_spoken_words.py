"""Find the moments at which something is said, from subtitles and without a language model.

    python examples/find_spoken_words.py

The script writes a short film and a subtitle file beside it; any .srt, .vtt or .ass file works.
"""

import tempfile
from pathlib import Path

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.moments.finder import Finder
from pipeline.needle_world import video as needle_video

SUBTITLES = """1
00:00:02,000 --> 00:00:05,000
The harbour was rebuilt with granite.

2
00:00:09,000 --> 00:00:12,000
Bread needs salt, water and time.
"""


def main() -> None:
    """Ingest the film with its subtitles, then search."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "talk.mp4"
        footage = needle_video.procedural_footage(seed=1, size=(192, 108))
        needle_video.write(film, (), 15.0, footage, size=(192, 108))
        film.with_suffix(".srt").write_text(SUBTITLES)

        bank = Path(folder) / "bank"
        settings = compose("ingest", [f"video={film}", f"bank={bank}", "text=subtitles"])
        backbone = build_backbone(settings)
        qa = build_qa(settings, backbone)
        with qa.bank:
            qa.ingest(build_source(settings, backbone))

        with MemoryBank.open(
            bank, None, UniformRetriever(), recent_frames=0, create=False
        ) as opened:
            finder = Finder(opened, channels=("subtitle",))
            for query in ("Which stone is in the harbour?", '"bread needs salt"'):
                moment = finder.find(query)[0]
                print(f"{query} {moment.start:.0f}-{moment.end:.0f} s: {moment.lines[0].text}")


if __name__ == "__main__":
    main()
