"""Forms of surfaces: polynomials fitted to maps, and what they say."""
