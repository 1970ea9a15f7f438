"""Cleaning: rules as pure functions, each with a name and a reason, chosen by the options.

An *edit* changes a text (`str -> str`), a *check* judges it (`TextView -> measured value`, above
its limit the record goes). What a rule did is counted under its name.
"""

from miao.corpus.clean.cleaner import Cleaned, Cleaner, Rejected
from miao.corpus.clean.rules import reasons
