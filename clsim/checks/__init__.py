"""The contract, as checks that anyone can run on their own component.

    clsim check ./my_selector.py:my_selector          from the command line
    clsim.check_selector(my_selector)                 from a test

Each raises :class:`CheckFailed` with one sentence that says what the component did and what it should have done.
"""

from __future__ import annotations

from clsim.checks.condensers import check_condenser
from clsim.checks.learners import check_learner
from clsim.checks.samples import CheckFailed
from clsim.checks.selectors import check_selector
from clsim.checks.semi import check_hidden_labels

__all__ = ["CheckFailed", "check_condenser", "check_hidden_labels", "check_learner", "check_selector"]
