"""What is asked of a model: likelihoods, continuations, answers, and how they are read."""
