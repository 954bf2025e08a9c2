"""What tastypy_fast costs beside the same work written by hand: ``python -m benchmarks --help``."""
