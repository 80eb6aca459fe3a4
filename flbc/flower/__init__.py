"""The only room that imports flwr: strategy wrapper, mod, message exchange, roles, bundled app."""
