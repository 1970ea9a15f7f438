"""Training: one loop for all stages, and around it what feeds, spreads, guards and shows it."""
