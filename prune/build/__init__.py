"""Sources, configurations, toolchains and builds of kernels, and what this machine has for them."""
