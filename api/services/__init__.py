"""The gRPC façade: one generic servicer for every kind, reflection, health.  Translates calls; decides nothing."""
