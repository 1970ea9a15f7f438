"""Whether an exported model is the same elsewhere; `python -m miao.export.parity DIRECTORY`."""
