"""How a run trains: contracts, the loop, the controller, evaluation, checkpoints."""
