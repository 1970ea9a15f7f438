"""One dial: from texts, a machine and a time to a plan, a recipe, a model that is done in time."""

RECIPE, BOOK = "grow.yaml", "grow.json"
"""In the run directory: the plan as a recipe; what was wished, found, expected, and came."""
DEFAULT_NAME = "grown"
"""Of a run whose assistant was given no name."""
