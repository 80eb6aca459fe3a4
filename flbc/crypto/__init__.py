"""Cryptographic primitives: bytes and integers in, bytes and integers out; no protocol, no network, no Flower."""
