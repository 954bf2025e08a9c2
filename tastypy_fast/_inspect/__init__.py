"""Report what a store holds, how far its tasks are and which processes have it open."""
