"""What is written down: chains, contracts, typed records, outbox, audit. The only room that imports web3, lazily."""
