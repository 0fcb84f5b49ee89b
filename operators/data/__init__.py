"""Tables and where they lie: examples, datasets, artifact folders.  Knows no model and no engine."""
