"""What a run leaves: its folder, its metrics, its table."""
