"""The glass box: what goes on in a model while it reads; the form is that of page/inspect.js."""
