"""Accounts that every development chain funds: everybody knows their keys, so they are worth nothing elsewhere."""

from __future__ import annotations

from ..crypto.signing import SigningKey

#: The phrase that Anvil, Hardhat and Ganache users know; its accounts hold ether on development chains only.
MNEMONIC = "test test test test test test test test test test test junk"
HD_PATH = "m/44'/60'/0'/0"
COUNT = 10

#: Addresses of the first accounts of the phrase (a test derives them again).
ADDRESSES = tuple(
    bytes.fromhex(text)
    for text in (
        "f39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        "70997970c51812dc3a010c7d01b50e0d17dc79c8",
        "3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
        "90f79bf6eb2c4f870365e785982e1f101e93b906",
        "15d34aaf54267db7d7c367839aaf71a00a2c6a65",
        "9965507d1a55bcc2695c58ba16fb37d819b0a4dc",
        "976ea74026e726554db657fa54763abd0c3a0aa9",
        "14dc79964da2c08b23698b3d3cc7ca32193d9955",
        "23618e81e3f5cdf7f54c3d65f7fbc0abf5b21e8f",
        "a0ee7a142d267c1f36714e4a8f75612f20a79720",
    )
)


def development_key(index: int = 0) -> SigningKey:
    """Return the key of a development account, 0 to 9. Loads eth-account."""
    from eth_account.hdaccount import seed_from_mnemonic
    from eth_account.hdaccount.deterministic import HDPath

    if not 0 <= index < COUNT:
        raise ValueError(f"development accounts are numbered 0 to {COUNT - 1}")
    return SigningKey.from_bytes(bytes(HDPath(f"{HD_PATH}/{index}").derive(seed_from_mnemonic(MNEMONIC, ""))))
