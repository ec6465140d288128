"""What pruned kernels do in guests, and what their consoles and memories say of that."""
