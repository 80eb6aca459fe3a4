// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IRegistry} from "../src/IRegistry.sol";
import {ITaskHub} from "../src/ITaskHub.sol";

/// @dev The hub as tests see it. Importing the contract itself would have the tests compiled as slowly as the hub.
interface TaskHub is ITaskHub {
    error BadLength(uint256 length, uint256 unit);

    function registry() external view returns (Registry);
    function separator() external view returns (bytes32);
    function simulation() external view returns (bool);
    function EVALUATION_TYPEHASH() external view returns (bytes32);
    function HOSPITAL() external view returns (uint8);
    function COMMITTEE() external view returns (uint8);
    function AUTHORITY() external view returns (uint8);
    function PUBLISHER() external view returns (uint8);
    function taskId(address publisher, bytes32 salt) external view returns (bytes32);
    function taskOf(bytes32 task) external view returns (Task memory);
    function participants(bytes32 task) external view returns (bytes memory);
    function claimed(bytes32 task, uint256 index) external view returns (bool);
    function publish(PublishInput calldata input) external payable returns (bytes32);
    function start(bytes32 task, address[] calldata accounts, bytes calldata sigma1) external;
    function drawSeed(bytes32 task) external;
    function submitRound(RoundInput calldata input) external returns (bytes32);
    function settle(SettleInput calldata input) external;
    function claim(bytes32 task, uint256 index, uint256 amount, bytes32[] calldata proof) external;
    function refund(bytes32 task) external;
    function reportSubmissions(SubmissionEvidence calldata a, SubmissionEvidence calldata b) external;
    function reportBlocks(BlockEvidence calldata a, BlockEvidence calldata b) external;
    function reportVotes(VoteEvidence calldata a, VoteEvidence calldata b) external;
}

/// @dev The registry as tests see it.
interface Registry is IRegistry {
    function hub() external view returns (address);
    function owner() external view returns (address);
    function treasury() external view returns (address);
    function unbonding() external view returns (uint64);
    function separator() external view returns (bytes32);
    function simulation() external view returns (bool);
    function suspensions() external view returns (uint64);
    function slashed() external view returns (uint256);
    function MAX_STAKE() external view returns (uint256);
    function accountOf(address signer) external view returns (address);
    function vrfOwner(address vrf) external view returns (address);
    function isSuspended(address signer) external view returns (bool);
    function member(address account) external view returns (Member memory);
    function register(RegisterInput calldata input, bytes calldata proof) external payable;
    function topUp() external payable;
    function beginUnstake() external;
    function withdrawStake() external;
    function suspend(address account, bool on) external;
    function lock(address account, uint64 until) external;
    function slash(address account, bytes32 evidence) external;
    function withdrawSlashed() external;
    function transferOwnership(address to) external;
    function acceptOwnership() external;
}
