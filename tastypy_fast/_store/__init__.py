"""One open store of this process, its files and options, and the registry of all open stores."""
