"""Every byte of a linked kernel has a row."""
