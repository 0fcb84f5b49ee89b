"""From an event to runs: taking it in, taking it to whom it concerns, forgetting it."""
