"""A workload, its servers, disks and load, as its folder describes them."""
