"""Learners: what trains on an experience; each method has a file."""
