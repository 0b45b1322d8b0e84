"""Height maps as instruments and other programs write them: a file a format, read row by row and written row by row."""
