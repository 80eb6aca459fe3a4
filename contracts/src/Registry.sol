// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {IRegistry} from "./IRegistry.sol";
import {Typed} from "./Typed.sol";

/// @title Who takes part: keys, roles, stakes
/// @notice Everybody registers for itself and declares its own roles; what a role is worth is decided by the publisher
/// who chooses the participants of a task, and by the rosters that nodes pin. An account stakes and is paid; its
/// *signer* signs rounds. Ether here belongs to the stakers, except what was slashed, which belongs to the treasury.
///
/// The owner (the authority) can suspend accounts and nothing else; it cannot touch a stake. The hub can lock stakes
/// for the time of a task and slash those that are proven to have signed two different things.
contract Registry is IRegistry, Typed, Ownable2Step, ReentrancyGuard {
    /// @notice EIP-712 type of the proof of possession.
    bytes32 public constant REGISTER_TYPEHASH = keccak256(
        "Register(address account,address signer,address vrf,bytes32 encryption,bytes32 schemeKey,uint32 examples,uint8 roles,bytes32 name)"
    );
    /// @notice Longest unbonding time that a deployment may choose.
    uint64 public constant MAX_UNBONDING = 365 days;
    /// @notice Largest stake in wei: participants' stakes are frozen as uint64 gwei.
    uint256 public constant MAX_STAKE = uint256(type(uint64).max) * 1 gwei;

    /// @notice The {TaskHub}.
    address public immutable hub;
    /// @notice Who gets what was slashed.
    address public immutable treasury;
    /// @notice Seconds between {beginUnstake} and {withdrawStake}.
    uint64 public immutable unbonding;

    /// @notice Number of changes by {suspend}. Equal numbers at two times: nobody's suspension changed in between.
    uint64 public suspensions;
    /// @notice Slashed stakes that wait for the treasury, in wei.
    uint256 public slashed;
    /// @notice Account of a signer, for ever: signatures of keys that were replaced stay attributable.
    mapping(address signer => address account) public accountOf;
    /// @notice Account of a VRF key, for ever: with another's key one could repeat its proofs as one's own.
    mapping(address vrf => address account) public vrfOwner;
    mapping(address account => Member) private _members;

    modifier onlyHub() {
        if (msg.sender != hub) revert NotHub(msg.sender);
        _;
    }

    /// @notice Deployed by the hub, which becomes the verifying contract of the EIP-712 domain.
    /// @param authority Owner.
    /// @param treasury_ Receiver of slashed stakes.
    /// @param unbonding_ In seconds.
    /// @param simulation_ See {Typed}.
    /// Reverts with {ZeroAddress} or {UnbondingTooLong}.
    constructor(address authority, address treasury_, uint64 unbonding_, bool simulation_)
        Typed(msg.sender, simulation_)
        Ownable(authority)
    {
        if (treasury_ == address(0)) revert ZeroAddress();
        if (unbonding_ > MAX_UNBONDING) revert UnbondingTooLong(unbonding_, MAX_UNBONDING);
        hub = msg.sender;
        treasury = treasury_;
        unbonding = unbonding_;
    }

    /// @notice The account as it is now; all zeros if it has never registered.
    function member(address account) external view returns (Member memory) {
        return _members[account];
    }

    /// @notice Whether the account that `signer` belongs to is suspended now.
    function isSuspended(address signer) external view returns (bool) {
        return _members[accountOf[signer]].suspended;
    }

    /// @notice Register the sender, or change its keys, and add the value to its stake. An account that is leaving stays.
    /// @param input Keys, roles and name.
    /// @param proof EIP-2098 signature of `input.signer` over Register(msg.sender, input).
    /// @dev Running tasks keep the keys that they froze. Reverts with {BadName}, {NoRoles}, {BadLength},
    /// {BadProofOfPossession}, {SignerTaken}, {VrfTaken} or {StakeTooLarge}.
    function register(RegisterInput calldata input, bytes calldata proof) external payable {
        _checkName(input.name);
        if (input.roles == 0) revert NoRoles();
        bytes32 structHash = keccak256(
            abi.encode(
                REGISTER_TYPEHASH,
                msg.sender,
                input.signer,
                input.vrf,
                input.encryption,
                input.schemeKey,
                input.examples,
                input.roles,
                input.name
            )
        );
        address proven = _recover(structHash, proof);
        if (proven == address(0) || proven != input.signer) revert BadProofOfPossession(input.signer);
        _take(input);

        Member storage m = _members[msg.sender];
        if (m.signer != input.signer || m.vrf != input.vrf) m.since = uint64(block.number);
        m.signer = input.signer;
        m.roles = input.roles;
        m.examples = input.examples;
        m.vrf = input.vrf;
        m.unlockAt = 0;
        m.encryption = input.encryption;
        m.schemeKey = input.schemeKey;
        m.name = input.name;
        emit Registered(
            msg.sender,
            input.signer,
            input.vrf,
            input.encryption,
            input.schemeKey,
            input.examples,
            input.roles,
            input.name
        );
        if (msg.value != 0) _addStake(m);
    }

    /// @notice Add the value to the sender's stake.
    /// @dev Reverts with {NotRegistered}, {NothingToMove} or {StakeTooLarge}.
    function topUp() external payable {
        Member storage m = _registered(msg.sender);
        if (msg.value == 0) revert NothingToMove();
        _addStake(m);
    }

    /// @notice Leave: the sender takes part in no further task and can withdraw its stake after the unbonding time.
    /// To come back, {register} again.
    /// @dev Reverts with {NotRegistered} or {AlreadyUnstaking}.
    function beginUnstake() external {
        Member storage m = _registered(msg.sender);
        if (m.unlockAt != 0) revert AlreadyUnstaking(m.unlockAt);
        m.unlockAt = uint64(block.timestamp) + unbonding;
        emit UnstakeBegun(msg.sender, m.unlockAt);
    }

    /// @notice Pay the sender's whole stake back, once unbonding and all locks have ended.
    /// @dev The account stays outside (`unlockAt` is kept) until it registers again. Reverts with {NotUnstaking},
    /// {StakeLocked}, {NothingToMove} or {PaymentFailed}.
    function withdrawStake() external nonReentrant {
        Member storage m = _members[msg.sender];
        if (m.unlockAt == 0) revert NotUnstaking();
        uint64 until = m.unlockAt > m.lockedUntil ? m.unlockAt : m.lockedUntil;
        if (block.timestamp < until) revert StakeLocked(until);
        uint256 amount = m.stake;
        if (amount == 0) revert NothingToMove();
        m.stake = 0;
        emit StakeChanged(msg.sender, 0);
        _pay(msg.sender, amount);
    }

    /// @notice Suspend an account, or lift it. A suspended account starts no task and joins none, and what it signs in
    /// running tasks is refused. Its stake, and what it has earned, stay its own.
    /// @dev Only the owner. Nothing happens if nothing changes. Reverts with {NotRegistered}.
    function suspend(address account, bool on) external onlyOwner {
        Member storage m = _registered(account);
        if (m.suspended == on) return;
        m.suspended = on;
        ++suspensions;
        emit Suspended(account, on);
    }

    /// @notice Keep the stake of `account` until `until`, and say what the hub needs to know of it.
    /// @dev Only the hub. Never shortens a lock.
    function lock(address account, uint64 until) external onlyHub returns (Seat memory seat) {
        Member storage m = _members[account];
        seat.signer = m.signer;
        seat.roles = m.roles;
        seat.examples = m.examples;
        seat.vrf = m.vrf;
        seat.since = m.since;
        seat.stake = m.stake;
        seat.active = m.signer != address(0) && !m.suspended && m.unlockAt == 0;
        seat.name = m.name;
        if (until > m.lockedUntil) {
            m.lockedUntil = until;
            emit Locked(account, until);
        }
    }

    /// @notice Take the whole stake of `account`.
    /// @dev Only the hub, which has checked the evidence.
    function slash(address account, bytes32 evidence) external onlyHub {
        Member storage m = _members[account];
        uint256 amount = m.stake;
        m.stake = 0;
        slashed += amount;
        emit Slashed(account, amount, evidence);
        emit StakeChanged(account, 0);
    }

    /// @notice Pay what was slashed to the treasury. Anybody may call this.
    /// @dev Reverts with {NothingToMove} or {PaymentFailed}.
    function withdrawSlashed() external nonReentrant {
        uint256 amount = slashed;
        if (amount == 0) revert NothingToMove();
        slashed = 0;
        emit SlashedWithdrawn(amount);
        _pay(treasury, amount);
    }

    /// @dev Bind both keys to the sender for ever.
    function _take(RegisterInput calldata input) private {
        address account = accountOf[input.signer];
        if (account == address(0)) accountOf[input.signer] = msg.sender;
        else if (account != msg.sender) revert SignerTaken(input.signer, account);
        if (input.vrf == address(0)) return;
        account = vrfOwner[input.vrf];
        if (account == address(0)) vrfOwner[input.vrf] = msg.sender;
        else if (account != msg.sender) revert VrfTaken(input.vrf, account);
    }

    function _addStake(Member storage m) private {
        uint256 stake = m.stake + msg.value;
        if (stake > MAX_STAKE) revert StakeTooLarge(stake, MAX_STAKE);
        m.stake = uint128(stake);
        emit StakeChanged(msg.sender, stake);
    }

    function _registered(address account) private view returns (Member storage m) {
        m = _members[account];
        if (m.signer == address(0)) revert NotRegistered(account);
    }

    /// @dev Printable ASCII (0x21 to 0x7e), at least one character, zeros to the end.
    function _checkName(bytes32 name) private pure {
        bool ended = false;
        for (uint256 i; i < 32; ++i) {
            uint8 c = uint8(name[i]);
            if (c == 0) ended = true;
            else if (ended || c < 0x21 || c > 0x7e) revert BadName(name);
        }
        if (name[0] == 0) revert BadName(name);
    }

    /// @dev Last step of its callers: all state is final, and a receiver that reverts undoes only its own call.
    function _pay(address receiver, uint256 amount) private {
        (bool ok,) = receiver.call{value: amount}("");
        if (!ok) revert PaymentFailed(receiver);
    }
}
