"""The compiled engine's kernels on a GPU, in Numba's CUDA: equal numbers, but for the last bit of exp and log."""
