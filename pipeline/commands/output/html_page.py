"""Self-contained HTML pages: the frame of a page, and pictures in its text. Knows no content."""

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def page(title: str, style: str, body: str) -> str:
    """A whole page. style: CSS; title: plain text; body: HTML."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{style}</style>{body}</html>\n"
    )


def jpeg_base64(picture: "Image.Image") -> str:
    """The picture as JPEG in base64."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
