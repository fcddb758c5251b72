"""
From nothing to a paper's table
===============================

To come.
"""
