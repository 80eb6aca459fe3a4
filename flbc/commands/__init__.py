"""The commands of ``flbc``, a file per group; :mod:`flbc.cli` puts them together.

Modules here load nothing heavy: web3, py-evm and Flower are imported inside the commands that need them, so that
``flbc --help`` answers at once.
"""
