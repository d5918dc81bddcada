"""Imported by the server that test processes are forked from: all that a command loads, and one configuration composed, so
that no process has to. See tests/support/children.py."""

from pipeline import cli
from tests.support import children  # noqa: F401

cli.configure("ingest", ["video=x"])
