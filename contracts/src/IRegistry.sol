// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Values, events and errors of the {Registry}
interface IRegistry {
    /// @notice What an account registers.
    /// @param signer Address of the signing key.
    /// @param vrf Address of the VRF key; zero for accounts that never lead.
    /// @param encryption X25519 public key.
    /// @param schemeKey Fingerprint of the scheme key, or zero.
    /// @param examples Declared size of the training set.
    /// @param roles Bits: HOSPITAL 1, COMMITTEE 2, AUTHORITY 4, PUBLISHER 8, GENERATOR 16; others are reserved.
    /// @param name Printable ASCII without spaces, padded with zeros.
    struct RegisterInput {
        address signer;
        address vrf;
        bytes32 encryption;
        bytes32 schemeKey;
        uint32 examples;
        uint8 roles;
        bytes32 name;
    }

    /// @notice An account as it is registered now.
    /// @param suspended By the authority.
    /// @param since Block number of the last change of signer or VRF key.
    /// @param stake In wei.
    /// @param unlockAt End of unbonding; 0 unless the account is leaving or has left.
    /// @param lockedUntil The stake stays until then, because a task counts on it.
    struct Member {
        address signer;
        uint8 roles;
        bool suspended;
        uint32 examples;
        address vrf;
        uint64 since;
        uint128 stake;
        uint64 unlockAt;
        uint64 lockedUntil;
        bytes32 encryption;
        bytes32 schemeKey;
        bytes32 name;
    }

    /// @notice What the hub freezes of an account when a task starts.
    /// @param active Registered, not suspended, not leaving.
    struct Seat {
        address signer;
        uint8 roles;
        uint32 examples;
        address vrf;
        uint64 since;
        uint128 stake;
        bool active;
        bytes32 name;
    }

    /// @notice `account` registered or changed its keys.
    event Registered(
        address indexed account,
        address indexed signer,
        address vrf,
        bytes32 encryption,
        bytes32 schemeKey,
        uint32 examples,
        uint8 roles,
        bytes32 name
    );
    /// @notice The stake of `account` is now `stake` wei.
    event StakeChanged(address indexed account, uint256 stake);
    /// @notice `account` leaves; its stake can be withdrawn from `unlockAt` on, unless it is locked for longer.
    event UnstakeBegun(address indexed account, uint64 unlockAt);
    /// @notice A task counts on the stake of `account` until `until`.
    event Locked(address indexed account, uint64 until);
    /// @notice The authority suspended `account`, or lifted it.
    event Suspended(address indexed account, bool on);
    /// @notice `account` lost `amount` wei; `evidence` names what was proven (see {TaskHub}).
    event Slashed(address indexed account, uint256 amount, bytes32 evidence);
    /// @notice The treasury received `amount` wei.
    event SlashedWithdrawn(uint256 amount);

    /// @notice Only the hub may do this.
    error NotHub(address caller);
    /// @notice A constructor argument must not be zero.
    error ZeroAddress();
    /// @notice Unbonding times beyond {MAX_UNBONDING} are refused.
    error UnbondingTooLong(uint64 unbonding, uint64 max);
    /// @notice The account has never registered.
    error NotRegistered(address account);
    /// @notice The proof of possession is not by `signer` over exactly this registration.
    error BadProofOfPossession(address signer);
    /// @notice The signing key belongs to another account.
    error SignerTaken(address signer, address account);
    /// @notice The VRF key belongs to another account.
    error VrfTaken(address vrf, address account);
    /// @notice Names are 1 to 32 printable ASCII characters without spaces, then zeros.
    error BadName(bytes32 name);
    /// @notice At least one role is needed.
    error NoRoles();
    /// @notice The stake would exceed {MAX_STAKE}.
    error StakeTooLarge(uint256 stake, uint256 max);
    /// @notice Nothing was sent, or there is nothing to withdraw.
    error NothingToMove();
    /// @notice {beginUnstake} was called before.
    error AlreadyUnstaking(uint64 unlockAt);
    /// @notice {beginUnstake} comes first.
    error NotUnstaking();
    /// @notice The stake cannot be withdrawn before `until`.
    error StakeLocked(uint64 until);
    /// @notice The receiver refused the payment.
    error PaymentFailed(address receiver);
}
