"""Selectors: one function each, a file a family. All follow :class:`clsim.pool.pool.Selector`."""
