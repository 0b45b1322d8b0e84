"""Height maps on their way to durable storage: one writer per format, chosen by suffix in ``open``."""
