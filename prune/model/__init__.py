"""The ELF model: objects, the image of one link, its tables and its graphs, as arrays.

Imports nothing of the other packages.
"""
