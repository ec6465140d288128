"""What a kernel offers to somebody who got in."""
