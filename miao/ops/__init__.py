"""The arithmetic that a decoder is made of, as functions; each beside the plain formula."""
