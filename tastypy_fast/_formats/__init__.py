"""Write stores to other formats and read them back."""
