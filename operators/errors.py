"""What a program says when it fails.  Anything else that it raises is a fault of the system, and a retry may help."""

from __future__ import annotations


class UserError(Exception):
    """The inputs cannot work: trying again gives the same.  The message says what, which and what to do."""


class DataError(UserError):
    """The rows or columns that were given cannot work, whatever the code does with them."""


class InputGone(UserError):
    """What an earlier step or run should have left is not there."""


class NotProvided(UserError):
    """What a step asks for is not where it runs: cores, a GPU, Java, an environment that can be built."""
