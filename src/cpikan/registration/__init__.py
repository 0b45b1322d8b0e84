"""Registration: how maps lie on each other, found and applied; arrays to arrays, a window at a time."""
