"""Objectives: what a learner minimises, as named terms whose sum is the loss; each method has a file."""
