"""What kprune costs, against other linkers and link-time optimisation."""
