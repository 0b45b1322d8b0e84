"""Learned models on images: networks that denoise heights and check orders, their data, losses and training."""
