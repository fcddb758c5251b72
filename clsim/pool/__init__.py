"""The pool that a selector chooses from, and the selection that it may return."""
