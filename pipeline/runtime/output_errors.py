"""How text is printed that the encoding of stdout lacks: a file name's bytes as they are, else
escapes. Knows no command.
"""

import codecs

NAME = "reelbank"  # for errors= of a text stream


def register() -> None:
    """Make NAME known to Python; may be called again."""
    codecs.register_error(NAME, _as_bytes_or_escapes)


def _as_bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
