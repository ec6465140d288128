"""Loadable modules: as images, planned, linked and signed."""
