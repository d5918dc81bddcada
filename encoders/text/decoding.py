"""Bytes of a text file in any encoding -> text. Knows chardet; nothing of subtitles.

UTF-8 and files with a byte order mark are certain. Everything else is a guess, and a message says
so. A guess that mixes two alphabets within words is wrong: chardet takes short Italian texts for
Cyrillic ones.
"""

import codecs
import re
import unicodedata

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DEFAULT = "cp1252"  # if nothing fits: it gives every byte a letter, but five
_WESTERN = ("windows-1252", "iso-8859-1", "iso8859-15")
# of short texts in Western Europe's languages, which are many, over those of its neighbors: 1.0
# reads 8 of 96 files of one sentence wrongly, 1.1 reads 5, and 1.3 reads 6
_PREFERENCE = 1.1
_WIDE = ("utf-16", "utf-32")  # their texts are full of zero bytes; binary files have no line breaks
# ISO parts of the smallest languages: they fit short texts of large ones by chance
_RARE = [f"iso8859-{part}" for part in (3, 4, 6, 8, 10, 14, 16)]
_BROKEN = "UTF-8 with broken letters"
_BROKEN_SHARE = 0.05  # of the letters beyond ASCII
_MIXED = 0.2  # share of words in two alphabets from which on a guess is wrong
_ALPHABETS = ("CYRILLIC", "GREEK", "HEBREW", "ARABIC", "ARMENIAN", "GEORGIAN", "THAI")
_CONTROLS = re.compile("[\x80-\x9f]")  # Windows has letters and quotation marks there
_WORD = re.compile(r"[^\W\d_]+")
_ESCAPES = re.compile(r"\\[a-zA-Z]")  # a letter that belongs to a mark, such as \N, is no word


def decode(data: bytes) -> tuple[str | None, str]:
    """The text, with line breaks as \\n, and the name of the encoding if it was guessed ("" if it
    is certain). None if the bytes are no text. Broken letters become U+FFFD.
    """
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    # UTF-16 without a mark can be valid UTF-8 that is full of zeros
    is_wide = marked is None and b"\0" in data
    try:
        text = data.decode(marked or "utf-8")
    except UnicodeDecodeError:
        if marked is not None:
            return None, ""
    else:
        if not is_wide:
            return _unix(text), ""
    if marked is None and not is_wide and _is_broken_utf8(data):
        return _unix(data.decode("utf-8", "replace")), _BROKEN
    for name in _guesses(data, is_wide):
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        if "\n" in text if is_wide else _is_plausible(text):
            # the usual name, where several encodings have these letters in these places
            is_usual = data.decode(_DEFAULT, "replace") == text
            return _unix(text), _DEFAULT if is_usual else codecs.lookup(name).name
    return (None, "") if is_wide else (_unix(data.decode(_DEFAULT, "replace")), _DEFAULT)


def _is_broken_utf8(data: bytes) -> bool:
    """True if nearly all letters beyond ASCII are UTF-8: a file that was cut within a letter, or
    joined from two encodings.
    """
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return broken <= _BROKEN_SHARE * sum(not letter.isascii() for letter in text)


def _guesses(data: bytes, is_wide: bool) -> list[str]:
    """Encodings that may be meant, the likeliest first: those of the web, of Windows, and ISO."""
    # imported here: its models take 40 ms to load, and few files need them
    from chardet import EncodingEra, detect_all

    era = EncodingEra.MODERN_WEB | EncodingEra.LEGACY_ISO
    guesses = [
        (str(guess["encoding"]).lower(), guess["confidence"])
        for guess in detect_all(data, encoding_era=era, exclude_encodings=_RARE)
        if guess["encoding"]
    ]
    guesses.sort(key=lambda one: -one[1] * (_PREFERENCE if one[0] in _WESTERN else 1))
    names = [name for name, _ in guesses]
    return [name for name in names if is_wide == name.startswith(_WIDE)]


def _is_plausible(text: str) -> bool:
    """False for a text with control characters of ISO, or with words in two alphabets."""
    if _CONTROLS.search(text):
        return False
    words = [word for word in _WORD.findall(_ESCAPES.sub(" ", text)) if not word.isascii()]
    mixed = sum(
        any(letter.isascii() for letter in word)
        and any(unicodedata.name(letter, "").startswith(_ALPHABETS) for letter in word)
        for word in words
    )
    return mixed <= _MIXED * len(words)


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
