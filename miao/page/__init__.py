"""A model as one web page: weights, tokenizer, and a small engine in JavaScript and C."""
