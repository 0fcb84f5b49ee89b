"""A module of the project that `failing` imports from."""

SIDES = 4
