"""The command line: a file for every verb, with what it takes, asks and prints."""
