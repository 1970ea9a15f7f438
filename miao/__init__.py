"""Miao 苗: grow a small Chinese/English language model, from raw text to a chat."""

__version__ = "0.1.0"
