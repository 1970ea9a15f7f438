"""The studio: grow, watch, talk to and look inside a model, in the browser.

It starts child processes that run the verbs of the command line, reads what they write, and stops
them; whatever it does, a command does too, and the page shows which. A room is a page of `web/`
and a module that adds its routes: `app.ROOMS` lists them.
"""
