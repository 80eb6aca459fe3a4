"""Checks on updates that stay hidden, by three committee nodes that compute on shares.

Under construction: so far the links between the three (:mod:`flbc.verification.link`, :mod:`.tls`), arithmetic on
shares (:mod:`.sharing`) and comparisons (:mod:`.bits`). Nothing uses them yet.
"""
