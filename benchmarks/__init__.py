"""Compare tastypy_fast with the same work written by hand and with other packages: ``python -m benchmarks --help``."""
