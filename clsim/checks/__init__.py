"""The contract, as checks that anyone can run on their own component.

    clsim check ./my_selector.py:my_selector          from the command line
    clsim.check_selector(my_selector)                 from a test

Each raises :class:`CheckFailed` with one sentence that says what the component did and what it should have done.
"""
