"""What OCR reads in a folder of real clips, for a comparison by eye.

    python -m tests.measure.real_ocr FOLDER

Prints every line with its times and its confidence, and the seconds that reading a clip took. It
runs the extractor alone and encodes nothing.
"""

import argparse
import time
from pathlib import Path

from encoders.errors import UserError
from encoders.sources.container import inspect
from encoders.text.lines import VideoFile
from encoders.text.ocr import Ocr
from tests.support import measurement_page


def report(args: argparse.Namespace) -> None:
    """Print the lines of every clip."""
    for path in sorted(args.folder.iterdir()):
        begun = time.perf_counter()
        try:
            seconds = float(inspect(path).duration)
            spans = list(Ocr().spans(VideoFile(path.name, path, duration=seconds)))
        except UserError as error:
            print(f"{path.name}: {error}")
            continue
        lines = [line for span in spans for line in span.lines]
        print(
            f"{path.name}: {seconds:.0f} s, {len(lines)} lines, {time.perf_counter() - begun:.0f} s"
        )
        for line in lines:
            print(f"  {line.start:6.1f}-{line.end:6.1f}  {line.confidence:.2f}  {line.text}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
