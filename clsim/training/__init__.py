"""Training of a run: contracts, the loop, the controller, evaluation, checkpoints."""
