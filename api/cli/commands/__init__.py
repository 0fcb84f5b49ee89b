"""The commands' arguments, a file per group.  Bodies import what they call; nothing else here does work."""
