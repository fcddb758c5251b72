"""The buffer, and what it holds before the first experience."""
