"""A contact sheet: one picture with many small ones of films, each with its time below.

Knows films and moments; no bank, no search.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at
from memory.storage.atomic import replacing
from pipeline.config.units import Hours, format_time
from pipeline.export.moment_list import ListedMoment

FORMATS = (".jpg", ".jpeg", ".png", ".webp")
_GAP, _LABEL, _HEAD = 8, 22, 34  # pixels: between pictures, of a line of text, of the title
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_MOST = 200  # pictures of a sheet
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def write_sheet(
    moments: Sequence[ListedMoment],
    path: Path,
    *,
    title: str,
    columns: int = 4,
    width: int = 320,
) -> None:
    """Write a sheet with the picture in the middle of each moment. The suffix of `path` says the
    format.

    title: one line above. width: of each picture in pixels. UserError where there is nothing to
    show, on values that cannot be, and where a film is gone.
    """
    if not moments:
        raise UserError(f"There is nothing to show in {path}; find or ask something first")
    if len(moments) > _MOST:
        raise UserError(f"{len(moments)} pictures do not fit {path}; ask for {_MOST} at most")
    if columns < 1 or width < 64:
        raise UserError(f"{columns} columns of {width} pixels show nothing; use 1 and 64 or more")
    pictures = _pictures(moments, width)
    height = max(picture.height for picture in pictures)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    several = len({moment.path for moment in moments}) > 1
    cell = height + _LABEL * (2 if several else 1) + _GAP
    size = (columns * (width + _GAP) + _GAP, _HEAD + rows * cell + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((_GAP, _GAP), _fitting(draw, title, size[0] - 2 * _GAP, large), _INK, large)
    hours: Hours = "always" if max(moment.end for moment in moments) >= 3600 else "if needed"
    for number, (moment, picture) in enumerate(zip(moments, pictures, strict=True)):
        x = _GAP + number % columns * (width + _GAP)
        y = _HEAD + number // columns * cell
        sheet.paste(picture, (x + (width - picture.width) // 2, y + height - picture.height))
        at = format_time(moment.start, hours=hours)
        words = f"{number + 1}  {at}" + (f"  {moment.words}" if moment.words else "")
        draw.text((x, y + height + 3), _fitting(draw, words, width, small), _INK, small)
        if several:
            name = _fitting(draw, Path(moment.path).name, width, small)
            draw.text((x, y + height + 3 + _LABEL - 4), name, _FAINT, small)
    with replacing(path) as temporary:
        kind = path.suffix.lower().lstrip(".").replace("jpg", "jpeg").upper()
        sheet.save(temporary, format=kind, quality=88)


def _pictures(moments: Sequence[ListedMoment], width: int) -> list[Image.Image]:
    """The picture in the middle of each moment, grey where it cannot be decoded."""
    found: dict[int, Image.Image] = {}
    for film in dict.fromkeys(moment.path for moment in moments):
        numbers = [number for number, moment in enumerate(moments) if moment.path == film]
        numbers.sort(key=lambda number: moments[number].start)
        seconds = [(moments[number].start + moments[number].end) / 2 for number in numbers]
        for number, pixels in zip(numbers, pictures_at(Path(film), seconds, width), strict=True):
            if pixels is None:
                found[number] = Image.new("RGB", (width, width * 9 // 16), _FAINT)
                continue
            picture = Image.fromarray(pixels)
            if picture.width > width or picture.height > width:
                picture.thumbnail((width, width))
            found[number] = picture
    return [found[number] for number in range(len(moments))]


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    """A text as long as fits a width in pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "\u2026", font=font) > width:
        text = text[:-1]
    return text.rstrip() + "\u2026"
