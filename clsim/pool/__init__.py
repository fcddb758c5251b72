"""What a selector chooses from, and what it may return."""
