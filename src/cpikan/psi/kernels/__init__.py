"""The fused pixel pass: two fast paths with one signature, and plain demodulation for a subsample."""
