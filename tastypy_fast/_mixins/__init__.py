"""Methods that several public classes have in common."""
