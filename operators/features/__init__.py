"""The transformation graph and point-in-time join: numpy only, the same code in training and in serving."""
