"""Named moments of a commit where a test can stop the process.

Knows nothing of what happens between them. `reached(name)` follows every system call that a commit
relies on. It does nothing unless a test sets `hook`. A hook may end the process or raise what the
system call could have raised; it must not change anything else.
"""

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Report that the step of this name is done."""
    if hook is not None:
        hook(name)
