"""What is asked: tasks as YAML files, their items and prompts, answers taken out of text."""
