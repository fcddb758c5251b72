"""Bridges between clsim and other packages."""
