"""What several wavelengths say together: orders, ranges, and errors between them."""
