"""Traces of machines that are no guests."""
