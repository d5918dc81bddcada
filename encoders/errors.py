"""The one exception a user may see: bad input, told in one sentence.

Knows nothing of commands or exit codes; `pipeline/cli.py` prints it and exits with 2.
"""


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do about it."""
