"""People who are told of events: which, whom, with what text, by which way."""
