"""The guest's files: the agent, Debian's packages, modules, and the images that they are put into."""
