"""Values between steps: stored by the digest of their content, in open formats.  Never pickles."""

from __future__ import annotations

from operators.values.formats import Format, ValueRefused, register_format
from operators.values.references import Reference
from operators.values.store import Values, values_at

__all__ = ["Format", "Reference", "ValueRefused", "Values", "register_format", "values_at"]
