"""Acquisitions: the selectors that keep a state of their own over label rounds."""
