"""Networks on images: a U-Net without batch statistics, Fourier neural operators, multi-grid context."""
