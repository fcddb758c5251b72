"""Learners that give each task a part of the net."""
