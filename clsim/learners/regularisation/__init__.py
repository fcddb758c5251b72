"""Learners that hold weights, or features, near what earlier experiences need."""
