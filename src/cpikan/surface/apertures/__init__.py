"""Which pixels of a map count."""
