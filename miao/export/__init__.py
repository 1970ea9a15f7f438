"""A trained model for other programs: Hugging Face directories, GGUF, adapters, model cards."""
