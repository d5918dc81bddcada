"""The one exception a user may see: bad input, told in one sentence. And the end of a source that was told to stop.

Knows nothing of commands or exit codes; `pipeline/cli.py` prints it and exits with 2.
"""


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do about it."""


class SourceStopped(Exception):
    """A source was closed in the middle; what it had not given out yet will come again when it is opened again."""
