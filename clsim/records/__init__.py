"""Records of runs: their folders, metrics and tables."""
