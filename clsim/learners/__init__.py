"""Learners: what trains on an experience. A method is a file."""
