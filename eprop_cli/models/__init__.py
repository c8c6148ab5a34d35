"""Model families: neurons, their parameters, and what NEST calls them."""
