// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {EcVrf} from "../src/EcVrf.sol";
import {ITaskHub} from "../src/ITaskHub.sol";
import {vm} from "./Base.sol";
import {PARTY_0_HEIGHT_1, PARTY_0_HEIGHT_2, PARTY_1_HEIGHT_2, SEED} from "./Vectors.sol";
import {World} from "./World.sol";

/// @dev Leaders' proofs where the contract verifies them. The seed is written into storage, so that fixed proofs fit.
contract VrfTest is World {
    uint256 private constant TASKS_SLOT = 1; // after _punished
    uint256 private constant SEED_OFFSET = 8;

    bytes32 private task;

    function setUp() public override {
        super.setUp();
        ITaskHub.PublishInput memory x = order("vrf");
        x.vrf = true;
        task = publish(x, REWARD);
        begin(task, accounts());
        mine(2);
        vm.store(address(hub), bytes32(uint256(keccak256(abi.encode(task, TASKS_SLOT))) + SEED_OFFSET), SEED);
        eq(hub.taskOf(task).seed, SEED, "the slot of the seed has moved");
    }

    function led(uint32 round_, uint16 leader, bytes memory proof) private view returns (ITaskHub.RoundInput memory x) {
        x = round(task, round_, 0);
        x.leader = leader;
        x.proof = proof;
        seal(x, these(3, 4));
    }

    function refuses(uint8 step, ITaskHub.RoundInput memory x) private {
        expect(abi.encodeWithSelector(EcVrf.BadProof.selector, step));
        hub.submitRound(x);
    }

    function test_proofs() public {
        hub.submitRound(led(1, 0, PARTY_0_HEIGHT_1));
        hub.submitRound(led(9, 1, PARTY_1_HEIGHT_2)); // the second block, whatever its round
        eq(hub.taskOf(task).height, 2, "height");
    }

    function test_proofs_areOfThisHeight() public {
        (bool ok, bytes memory answer) =
            address(hub).call(abi.encodeCall(hub.submitRound, (led(1, 0, PARTY_0_HEIGHT_2))));
        eq(ok, false, "height 1");
        eq(bytes32(bytes4(answer)), bytes32(EcVrf.BadProof.selector), "reason");
        hub.submitRound(led(1, 0, PARTY_0_HEIGHT_1));
        (ok, answer) = address(hub).call(abi.encodeCall(hub.submitRound, (led(2, 0, PARTY_0_HEIGHT_1))));
        eq(ok, false, "height 2");
        hub.submitRound(led(2, 0, PARTY_0_HEIGHT_2));
    }

    function test_proofs_areTheLeadersOwn() public {
        hub.submitRound(led(1, 0, PARTY_0_HEIGHT_1));
        refuses(2, led(2, 0, PARTY_1_HEIGHT_2));
    }

    function test_proofs_areNeeded() public {
        refuses(1, led(1, 0, ""));
        refuses(1, led(1, 0, bytes.concat(PARTY_0_HEIGHT_1, hex"00")));
    }

    /// @dev One flipped bit anywhere.
    function testFuzz_proofs_everyBitCounts(uint256 bit) public {
        bytes memory proof = PARTY_0_HEIGHT_1;
        bit = bound(bit, 0, proof.length * 8 - 1);
        proof[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        ITaskHub.RoundInput memory x = led(1, 0, proof);
        (bool ok, bytes memory answer) = address(hub).call(abi.encodeCall(hub.submitRound, (x)));
        eq(ok, false, "refused");
        eq(bytes32(bytes4(answer)), bytes32(EcVrf.BadProof.selector), "reason");
    }
}
