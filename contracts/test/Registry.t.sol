// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IRegistry} from "../src/IRegistry.sol";
import {ORDER, vm} from "./Base.sol";
import {TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

contract RegistryTest is World {
    address private constant NEWCOMER = address(0x1234);
    uint256 private constant NEW_KEY = 0xbeef;

    function newForm() private view returns (IRegistry.RegisterInput memory) {
        return form(NEW_KEY, HOSPITAL, "newcomer");
    }

    function register(IRegistry.RegisterInput memory x, bytes memory proof) private {
        vm.prank(NEWCOMER);
        registry.register(x, proof);
    }

    // ---------------------------------------------------------------------------------------------- constructor

    function test_deployment() public view {
        eq(registry.hub(), address(hub), "hub");
        eq(registry.owner(), owner, "owner");
        eq(registry.treasury(), treasury, "treasury");
        eq(registry.unbonding(), UNBONDING, "unbonding");
        eq(registry.separator(), hub.separator(), "one domain");
        eq(registry.separator(), separatorOf(block.chainid, address(hub), true), "domain");
        eq(registry.simulation() && hub.simulation(), true, "simulation");
    }

    function test_deployment_refusesZeroAddressesAndLongUnbonding() public {
        expect(IRegistry.ZeroAddress.selector);
        deployRegistry(owner, address(0), 0);
        expect(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        deployRegistry(address(0), treasury, 0);
        expect(abi.encodeWithSelector(IRegistry.UnbondingTooLong.selector, 365 days + 1, 365 days));
        deployRegistry(owner, treasury, 365 days + 1);
    }

    function test_separator_followsTheChainIdAndTheSimulationFlag() public {
        TaskHub real = deployHub(0, false);
        eq(real.separator(), separatorOf(block.chainid, address(real), false), "real");
        vm.chainId(777);
        eq(hub.separator(), separatorOf(777, address(hub), true), "after a fork");
        eq(registry.separator(), hub.separator(), "registry too");
        eq(real.separator(), separatorOf(777, address(real), false), "real after a fork");
    }

    // ----------------------------------------------------------------------------------------------- registering

    function test_register_storesAndEmits() public {
        IRegistry.RegisterInput memory x = newForm();
        bytes memory proof = proofOf(NEWCOMER, NEW_KEY, x);
        vm.deal(NEWCOMER, 2 ether);
        vm.expectEmit(address(registry));
        emit IRegistry.Registered(NEWCOMER, x.signer, x.vrf, x.encryption, x.schemeKey, x.examples, x.roles, x.name);
        vm.expectEmit(address(registry));
        emit IRegistry.StakeChanged(NEWCOMER, 2 ether);
        vm.prank(NEWCOMER);
        registry.register{value: 2 ether}(x, proof);
        IRegistry.Member memory m = registry.member(NEWCOMER);
        eq(m.signer, x.signer, "signer");
        eq(m.vrf, x.vrf, "vrf");
        eq(m.roles, HOSPITAL, "roles");
        eq(m.examples, 100, "examples");
        eq(m.encryption, bytes32("x25519"), "encryption");
        eq(m.name, bytes32("newcomer"), "name");
        eq(m.stake, 2 ether, "stake");
        eq(m.since, height(), "since");
        eq(registry.accountOf(x.signer), NEWCOMER, "accountOf");
        eq(registry.vrfOwner(x.vrf), NEWCOMER, "vrfOwner");
    }

    function test_register_againKeepsSinceUnlessAKeyChanges() public {
        uint64 before = registry.member(account(1)).since;
        mine(5);
        enrol(account(1), key(1), HOSPITAL | COMMITTEE, "renamed", 1 ether);
        IRegistry.Member memory m = registry.member(account(1));
        eq(m.since, before, "same keys");
        eq(m.stake, 2 ether, "stake grows");
        eq(m.name, bytes32("renamed"), "name");
        enrol(account(1), NEW_KEY, HOSPITAL, "renamed", 0);
        eq(registry.member(account(1)).since, height(), "new signer");
        eq(registry.accountOf(vm.addr(key(1))), account(1), "the old signer stays attributable");
        mine(1);
        IRegistry.RegisterInput memory x = form(NEW_KEY, HOSPITAL, "renamed");
        x.vrf = address(0x77);
        bytes memory proof = proofOf(account(1), NEW_KEY, x);
        vm.prank(account(1));
        registry.register(x, proof);
        eq(registry.member(account(1)).since, height(), "new VRF key");
    }

    function test_register_keysBelongToOneAccountForEver() public {
        enrol(account(1), NEW_KEY, HOSPITAL, name(1), 0); // account 1 has replaced its keys
        IRegistry.RegisterInput memory x = form(key(1), HOSPITAL, "thief");
        bytes memory proof = proofOf(NEWCOMER, key(1), x);
        expect(abi.encodeWithSelector(IRegistry.SignerTaken.selector, x.signer, account(1)));
        register(x, proof);
        x = form(0xdead, HOSPITAL, "thief");
        x.vrf = vrfOf(key(1));
        proof = proofOf(NEWCOMER, 0xdead, x);
        expect(abi.encodeWithSelector(IRegistry.VrfTaken.selector, x.vrf, account(1)));
        register(x, proof);
        enrol(account(1), key(1), HOSPITAL, name(1), 0); // the account itself may return to them
    }

    function test_register_withoutVrfKey() public {
        for (uint160 i; i < 2; ++i) {
            IRegistry.RegisterInput memory x = form(NEW_KEY + i, COMMITTEE, "judge");
            x.vrf = address(0);
            bytes memory proof = proofOf(address(0x500 + i), NEW_KEY + i, x);
            vm.prank(address(0x500 + i));
            registry.register(x, proof);
        }
    }

    function test_register_proofBindsAccountAndEveryField() public {
        IRegistry.RegisterInput memory x = newForm();
        bytes memory bad = abi.encodeWithSelector(IRegistry.BadProofOfPossession.selector, x.signer);
        bytes memory proof = proofOf(account(1), NEW_KEY, x); // another account's
        expect(bad);
        register(x, proof);
        proof = proofOf(NEWCOMER, NEW_KEY, x);
        for (uint256 field; field < 6; ++field) {
            IRegistry.RegisterInput memory y = newForm();
            if (field == 0) y.vrf = address(1);
            if (field == 1) y.encryption = 0;
            if (field == 2) y.schemeKey = "x";
            if (field == 3) y.examples = 101;
            if (field == 4) y.roles = COMMITTEE;
            if (field == 5) y.name = "other";
            expect(bad);
            register(y, proof);
        }
        proof = proofOf(NEWCOMER, key(1), x); // another key's
        expect(bad);
        register(x, proof);
        proof = new bytes(64); // no signature at all, for the address that a void one recovers to
        x.signer = address(0);
        expect(abi.encodeWithSelector(IRegistry.BadProofOfPossession.selector, address(0)));
        register(x, proof);
    }

    function test_register_refusesHighS() public {
        IRegistry.RegisterInput memory x = newForm();
        bytes memory proof = proofOf(NEWCOMER, NEW_KEY, x);
        (bytes32 r, uint256 vs) = (bytes32(read(proof, 0, 32)), read(proof, 32, 32));
        uint256 s = ORDER - (vs & (type(uint256).max >> 1)); // the twin signature has the other parity
        proof = abi.encodePacked(r, s | ((vs >> 255 ^ 1) << 255));
        expect(abi.encodeWithSelector(IRegistry.BadProofOfPossession.selector, x.signer));
        register(x, proof);
    }

    function test_register_refusesMalformedInput() public {
        IRegistry.RegisterInput memory x = newForm();
        bytes memory proof = bytes.concat(proofOf(NEWCOMER, NEW_KEY, x), hex"00");
        expect(abi.encodeWithSelector(TaskHub.BadLength.selector, 65, 64));
        register(x, proof);
        x.roles = 0;
        expect(IRegistry.NoRoles.selector);
        register(x, proof);
        bytes32[5] memory names =
            [bytes32(0), bytes32(" space"), bytes32("a\x00b"), bytes32(unicode"münchen"), bytes32("a\x7f")];
        for (uint256 i; i < names.length; ++i) {
            x = newForm();
            x.name = names[i];
            expect(abi.encodeWithSelector(IRegistry.BadName.selector, names[i]));
            register(x, proof);
        }
        enrol(NEWCOMER, NEW_KEY, 0x80, "exactly.32.characters-long_name~", 0); // and a reserved role
    }

    // ----------------------------------------------------------------------------------- ---- authority and hub

    function test_suspend() public {
        vm.expectEmit(address(registry));
        emit IRegistry.Suspended(account(1), true);
        vm.prank(owner);
        registry.suspend(account(1), true);
        eq(registry.isSuspended(vm.addr(key(1))), true, "by signer");
        eq(registry.isSuspended(address(0x5)), false, "unknown signer");
        eq(registry.suspensions(), 1, "count");
        vm.prank(owner);
        registry.suspend(account(1), true);
        eq(registry.suspensions(), 1, "nothing changed");
        vm.prank(owner);
        registry.suspend(account(1), false);
        eq(registry.suspensions(), 2, "lifted");
        expect(abi.encodeWithSelector(IRegistry.NotRegistered.selector, NEWCOMER));
        vm.prank(owner);
        registry.suspend(NEWCOMER, true);
        expect(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, account(0)));
        vm.prank(account(0));
        registry.suspend(account(1), true);
    }

    function test_ownership_movesInTwoSteps() public {
        vm.prank(owner);
        registry.transferOwnership(NEWCOMER);
        eq(registry.owner(), owner, "not yet");
        vm.prank(NEWCOMER);
        registry.acceptOwnership();
        eq(registry.owner(), NEWCOMER, "accepted");
    }

    function test_lockAndSlash_areTheHubs() public {
        expect(abi.encodeWithSelector(IRegistry.NotHub.selector, owner));
        vm.prank(owner);
        registry.lock(account(1), 1);
        expect(abi.encodeWithSelector(IRegistry.NotHub.selector, owner));
        vm.prank(owner);
        registry.slash(account(1), 0);
    }

    function test_plainTransfersAreRefused() public {
        vm.deal(address(this), 2);
        (bool ok,) = address(registry).call{value: 1}("");
        eq(ok, false, "registry");
        (ok,) = address(hub).call{value: 1}("");
        eq(ok, false, "hub");
    }

    function testFuzz_register_names(bytes32 seed, uint8 length, uint8 where, bytes1 odd) public {
        bytes memory text = new bytes(32);
        for (uint256 i; i < bound(length, 1, 32); ++i) {
            text[i] = bytes1(uint8(0x21 + uint8(seed[i]) % 94));
        }
        if (uint8(odd) % 2 == 1) text[where % 32] = odd; // in half of the runs, any byte anywhere
        bytes32 name_ = bytes32(text);
        bool good = name_[0] != 0;
        bool ended;
        for (uint256 i; i < 32; ++i) {
            bytes1 c = name_[i];
            if (c == 0) ended = true;
            else good = good && !ended && c > 0x20 && c < 0x7f;
        }
        IRegistry.RegisterInput memory x = newForm();
        x.name = name_;
        bytes memory proof = proofOf(NEWCOMER, NEW_KEY, x);
        if (!good) expect(abi.encodeWithSelector(IRegistry.BadName.selector, name_));
        register(x, proof);
    }
}
