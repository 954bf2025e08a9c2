"""Open and close a store, and keep track of every store that this process has open."""
