"""Other libraries' shapes of the same things; each is imported only by the adapter that needs it."""
