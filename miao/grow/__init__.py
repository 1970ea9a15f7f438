"""One dial: from texts, a machine and a time to a plan, a recipe, a model that is done in time."""
