"""Filters of surfaces by ISO 16610: what is kept of a map is its large-scale part, by a nesting index in pixels."""
