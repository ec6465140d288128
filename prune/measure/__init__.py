"""What time and memory programs and kernels take, as numbers with intervals."""
