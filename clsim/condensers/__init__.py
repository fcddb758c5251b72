"""Condensers: a memory that is synthesised, not chosen. A file a family."""
