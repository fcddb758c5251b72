"""Objectives: what a learner minimises, as named terms whose sum is the loss. A file a method."""
