"""Report the content of a store, the progress of its tasks and the processes that have it open."""
