"""The storage engine and its files. Knows pages, locks and transactions, but nothing of records."""
