"""Why a run failed: facts, rules, and what differs from the last green run."""
