"""A process that keeps a bank's models loaded, and answers commands in their place.

Importing it is cheap: a command asks here before it loads anything.
"""

from pipeline.resident.client import ask_resident

__all__ = ["ask_resident"]
