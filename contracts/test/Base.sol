// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @dev The cheat codes of forge that are used here. (forge-std is not published on npm by its authors.)
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function signCompact(uint256 key, bytes32 digest) external pure returns (bytes32 r, bytes32 vs);
    function deal(address account, uint256 balance) external;
    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function roll(uint256 blockNumber) external;
    function etch(address target, bytes calldata code) external;
    function chainId(uint256 id) external;
    function setBlockhash(uint256 blockNumber, bytes32 hash) external;
    function getBlockTimestamp() external view returns (uint256);
    function getBlockNumber() external view returns (uint256);
    function store(address target, bytes32 slot, bytes32 value) external;
    function expectRevert(bytes calldata data) external;
    function expectEmit(address emitter) external;
    function assume(bool condition) external pure;
    function getCode(string calldata name) external view returns (bytes memory);
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

/// @dev Half of secp256k1's order and the order itself.
uint256 constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

/// @dev Comparisons that say what differed. Time and block number come from cheat codes: the optimizer may keep an
/// earlier `block.timestamp` across `vm.warp`.
abstract contract Base {
    error Different(string what, uint256 got, uint256 expected);

    function eq(uint256 got, uint256 expected, string memory what) internal pure {
        if (got != expected) revert Different(what, got, expected);
    }

    function eq(bytes32 got, bytes32 expected, string memory what) internal pure {
        eq(uint256(got), uint256(expected), what);
    }

    function eq(address got, address expected, string memory what) internal pure {
        eq(uint160(got), uint160(expected), what);
    }

    function eq(bool got, bool expected, string memory what) internal pure {
        eq(got ? 1 : 0, expected ? 1 : 0, what);
    }

    function time() internal view returns (uint64) {
        return uint64(vm.getBlockTimestamp());
    }

    function height() internal view returns (uint64) {
        return uint64(vm.getBlockNumber());
    }

    function skip(uint256 time_) internal {
        vm.warp(vm.getBlockTimestamp() + time_);
    }

    function mine(uint256 blocks) internal {
        vm.roll(vm.getBlockNumber() + blocks);
    }

    function min(uint256 a, uint256 b) internal pure returns (uint256) {
        return a < b ? a : b;
    }

    function max(uint256 a, uint256 b) internal pure returns (uint256) {
        return a > b ? a : b;
    }

    /// @dev A number in [low, high] that depends on `x`.
    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + (high - low == type(uint256).max ? x : x % (high - low + 1));
    }

    function expect(bytes4 selector) internal {
        vm.expectRevert(abi.encodeWithSelector(selector));
    }

    function expect(bytes memory data) internal {
        vm.expectRevert(data);
    }
}

/// @dev An account with code. It does what it is told, and answers a payment as its `mode` says.
contract Actor {
    enum Mode {
        Accept,
        Refuse,
        Reenter,
        Burn
    }

    Mode public mode;
    uint256 public received;
    uint256 public reentered; // inner calls that went through
    bytes public answer; // of the last inner call
    address private _target;
    bytes private _data;

    function set(Mode mode_, address target, bytes calldata data) external {
        (mode, _target, _data) = (mode_, target, data);
    }

    function run(address target, uint256 value, bytes calldata data) external returns (bytes memory) {
        (bool ok, bytes memory result) = target.call{value: value}(data);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
        return result;
    }

    receive() external payable {
        received += msg.value;
        if (mode == Mode.Refuse) revert("no, thanks");
        if (mode == Mode.Burn) while (true) {}
        if (mode == Mode.Reenter) {
            (bool ok, bytes memory result) = _target.call(_data);
            if (ok) ++reentered;
            answer = result;
        }
    }
}
