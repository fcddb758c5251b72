"""Learners from labelled and unlabelled samples."""
