"""`miao doctor`: what this machine is, what a recipe will take on it, and what would help."""
