"""A map in the browser: tiles of numbers made as they are asked for, one page that colours them."""
