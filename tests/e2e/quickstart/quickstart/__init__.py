"""A Flower app in the usual layout."""
