"""What tracers write: ftrace's own buffers, and the files of other tools."""
