"""GGUF files as llama.cpp reads them: names, rotations, tokenizer, quantisation."""
