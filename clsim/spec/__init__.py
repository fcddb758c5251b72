"""The spec of a run: its tables, and how names, files and flags become one. Torch and Avalanche are not imported."""
