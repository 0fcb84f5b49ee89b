"""Who calls and what they may do: tokens, certificates, roles.  Decides; stores nothing of its own but token hashes."""
