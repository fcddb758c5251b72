"""Hostile input, made from a seed: options, specs, damaged run folders, data files, exports, command lines.

``python -m tests.fuzz`` carries inputs out; ``python -m tests.fuzz --replay FILE`` one of them again. An input that
fails is kept in ``corpus`` until what it found is mended, and stays there as a test.
"""
