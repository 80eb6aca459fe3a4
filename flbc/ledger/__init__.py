"""What is written down: chains, the contracts on them, sending, reading back, auditing.

The only room that imports web3, and none of it here: ``import flbc.ledger`` loads nothing. Loading web3 or py-evm
raises Python's recursion limit to 100,000 for the whole process (py_ecc and py-evm do so at import, and deep contract
calls need it), so nothing in flbc may rely on the limit to stop hostile nesting: :mod:`flbc.encoding` counts brackets.
"""
