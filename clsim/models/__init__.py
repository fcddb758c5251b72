"""Nets, and the optimizers that train them."""
