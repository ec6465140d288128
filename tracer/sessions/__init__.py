"""A guest that runs a workload: the conversation with its agent, variations, soaks, measurements."""
