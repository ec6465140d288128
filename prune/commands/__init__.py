"""Verbs of the command line that are more than a stage, a module each."""
