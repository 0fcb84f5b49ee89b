"""The HTTP port of the API server: health, metrics and reports of other processes.  Resources are served by gRPC."""
