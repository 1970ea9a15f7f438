"""What keeps a training alive: checkpoints, a guard over its numbers, signals."""
