"""Messages as texts: what YAML and JSON may say, read field by field and written back.  Knows no kind, no transport."""
