"""Learners that replay a memory."""
