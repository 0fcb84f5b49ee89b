"""The embedded platform's processes: checked, started, watched, restarted and stopped.  Knows nothing of resources."""
