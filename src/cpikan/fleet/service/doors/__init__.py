"""The doors of the service, a router for each thing that can be asked for."""
