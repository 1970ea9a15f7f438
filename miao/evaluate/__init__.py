"""What a model knows: bits per byte, multiple choice, questions, preferences, benchmarks."""
