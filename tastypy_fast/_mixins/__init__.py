"""Define the methods that several public classes share."""
