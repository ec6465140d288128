"""kprune: profile a Linux kernel with the applications that matter, prune every cold function."""

import os

# numpy's linear algebra, which nobody here asks for, starts a thread for every processor when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
