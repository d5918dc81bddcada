"""Everything that a command loads, and one composed configuration.

The server that test processes are forked from imports this, so that no process has to. See
tests/support/children.py.
"""

from pipeline.config.compose import compose
from tests.support import children  # noqa: F401

compose("ingest", ["video=x"])
