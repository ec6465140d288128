"""A plan becomes edited objects and a linker script, inside ``kprune-ld``."""
