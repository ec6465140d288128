"""The stages of a run, one after the other: the edges that touch disk and start programs."""
