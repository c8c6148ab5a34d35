"""Many runs at once: multiruns, their jobs, what is left of them."""
