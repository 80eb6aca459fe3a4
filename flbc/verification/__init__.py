"""Checks on updates that stay hidden, by three committee nodes that compute on shares.

Under construction: so far only the links between the three (:mod:`flbc.verification.link`, :mod:`.tls`).
"""
