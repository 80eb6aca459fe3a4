"""Checks on models that stay hidden, by three nodes that compute on shares: what ``Verified`` rests on.

Trust
    Privacy and correctness assume three nodes that follow the protocol, and of whom no two work together. Two that do
    read every model, and the third's validation data. A single one that deviates can flip bits, and so choose who is
    summed, or spoil the sum; nothing here notices that. There is no differential privacy.

For a reader, from the question down to the bytes
    =======================  ==========================================================================================
    :mod:`.policy`           which models may be summed: the rules, and integers that follow from them
    :mod:`.committee`        a round: bounds, checks, what is revealed, the sum of what passed
    :mod:`.checks`           norms, accuracies, medians and cosine of all models at once, as one hidden bit each
    :mod:`.root`             the update that a node computes on its own data, for the cosine
    :mod:`.inference`        a compiled network on hidden weights and samples
    :mod:`.program`          PyTorch modules as lists of steps (:mod:`.tracing`, :mod:`.translation`, :mod:`.arguments`,
                             :mod:`.steps`), and how large numbers can get in them
    :mod:`.folding`          BatchNorm as a scale and a shift, before anything is shared; numpy alone, for clients
    :mod:`.engine`           what all of the above needs of arithmetic; :mod:`.plain` does it in the clear, for tests
    :mod:`.sharing`          products and truncation on replicated shares modulo 2^64
    :mod:`.bits`             comparisons, and choices by hidden bits; :mod:`.slicing` lays 64 of them in a word
    :mod:`.session`          agreeing on what is computed, on keys, and on which clients' shares are sound
    :mod:`.link`             messages between the three: threads, or :mod:`.tls` with certificates of one run
                             (:mod:`.session_key`)
    :mod:`.road`             how connections come about: directly, or through a relay (:mod:`.rendezvous`,
                             :mod:`.relay`)
    =======================  ==========================================================================================

How clients share and how sums are opened is in :mod:`flbc.schemes.sharing`; what a node accepts, remembers and signs in
:mod:`flbc.node.verifier`. Nothing here knows Flower. Importing this package, :mod:`.policy` or :mod:`.folding` loads no
torch.
"""
