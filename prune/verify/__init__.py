"""Prove a pruned kernel by reading it again; nothing here is shared with the code that wrote it."""
