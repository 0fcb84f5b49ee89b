"""Doors to other systems: one module each, and nobody else imports what is behind it."""
