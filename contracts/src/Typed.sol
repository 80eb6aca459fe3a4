// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title EIP-712 domain and compact signatures of flbc
/// @notice One domain for everything that parties sign: name "flbc", version "1", the chain, the {TaskHub} (for the
/// {Registry} too) and a salt that keeps signatures of development identities apart from real ones.
/// @dev OpenZeppelin's `EIP712` has no salt and always binds the contract itself, hence this one.
abstract contract Typed {
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)");
    bytes32 private constant NAME_HASH = keccak256("flbc");
    bytes32 private constant VERSION_HASH = keccak256("1");
    bytes32 private constant SIMULATION_SALT = keccak256("flbc/SIMULATION");

    /// @notice Whether development identities, whose keys anybody can derive, take part here.
    bool public immutable simulation;

    address private immutable _verifyingContract;
    uint256 private immutable _cachedChain;
    bytes32 private immutable _cachedSeparator;

    /// @notice Packed bytes or a signature do not have a length that is a multiple of their unit.
    /// @param length What was given.
    /// @param unit Bytes per element.
    error BadLength(uint256 length, uint256 unit);

    /// @param verifyingContract The hub.
    /// @param simulation_ Whether the domain's salt is that of development identities.
    constructor(address verifyingContract, bool simulation_) {
        simulation = simulation_;
        _verifyingContract = verifyingContract;
        _cachedChain = block.chainid;
        _cachedSeparator = _computeSeparator(verifyingContract, simulation_);
    }

    /// @notice EIP-712 domain separator; another one after a fork of the chain that changed its id.
    function separator() public view returns (bytes32) {
        if (block.chainid == _cachedChain) return _cachedSeparator;
        return _computeSeparator(_verifyingContract, simulation);
    }

    function _computeSeparator(address verifyingContract, bool simulation_) private view returns (bytes32) {
        bytes32 salt = simulation_ ? SIMULATION_SALT : bytes32(0);
        return keccak256(abi.encode(DOMAIN_TYPEHASH, NAME_HASH, VERSION_HASH, block.chainid, verifyingContract, salt));
    }

    /// @dev What is signed for a struct.
    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", separator(), structHash));
    }

    /// @dev Signer of a struct by an EIP-2098 signature (r, then s with the parity of R in its top bit).
    /// @return signer Zero if the signature is void: high s, or no point. Callers compare with a nonzero address.
    /// Reverts with {BadLength} unless the signature has 64 bytes.
    function _recover(bytes32 structHash, bytes calldata signature) internal view returns (address signer) {
        if (signature.length != 64) revert BadLength(signature.length, 64);
        (signer,,) = ECDSA.tryRecover(_digest(structHash), bytes32(signature[:32]), bytes32(signature[32:]));
    }
}
