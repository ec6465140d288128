"""kprune: profile a Linux kernel with the applications that matter, prune every cold function."""

import gc
import os

# numpy's linear algebra, which nobody here asks for, starts a thread for every processor when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# After every 700 new objects Python looks for garbage in cycles. Importing numpy and this package makes fifty
# thousand that stay: a seventh of the time that it takes.
gc.set_threshold(50_000)
