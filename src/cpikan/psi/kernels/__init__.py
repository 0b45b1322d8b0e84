"""The fused pixel pass: a plain reference and two fast paths with one signature."""
