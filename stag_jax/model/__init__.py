"""The network: pure graph and attention functions, thin layers over them, losses."""
