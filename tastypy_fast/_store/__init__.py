"""Open stores, check their options and files, and register all stores that this process has open."""
