import builtins
import importlib
import inspect
import re

import pytest

import flbc
from flbc import errors

PUBLIC = [
    "AlreadyOpenedError",
    "AuditError",
    "BudgetExhaustedError",
    "ChainBusyError",
    "ChainResetError",
    "ChainUnavailableError",
    "CiphertextError",
    "Codec",
    "CodecError",
    "Compression",
    "ConfigError",
    "DependencyError",
    "FlbcError",
    "KeyFileError",
    "LayoutError",
    "Ledger",
    "LedgerError",
    "LinkError",
    "Masked",
    "NddFe",
    "NonFiniteError",
    "OpeningRefusedError",
    "Paillier",
    "PlaintextRefusedError",
    "Policy",
    "PolicyError",
    "Privacy",
    "PrivacyConfigError",
    "ProtocolError",
    "RevertedError",
    "RosterError",
    "SecureMod",
    "SensitivityError",
    "SignatureError",
    "StaleLabelError",
    "TooFewNodesError",
    "UnsupportedStrategyError",
    "VerificationError",
    "Verified",
    "WrongPasswordError",
    "clipped_gradient_sum",
    "poisson_sample",
]
EXCEPTIONS = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.FlbcError)]
each_exception = pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda e: e.__name__)


def test_public_names_are_pinned_and_sorted():
    assert flbc.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_importable_and_documented(name):
    value = getattr(importlib.import_module("flbc"), name)
    assert value.__name__ == name
    assert value.__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'flbc' has no attribute 'Krum'"):
        flbc.Krum  # noqa: B018


def test_version_is_the_package_version():
    assert flbc.__version__ == importlib.metadata.version("flbc")


@pytest.mark.parametrize("module", ["flbc.codec", "flbc.schemes", "flbc.node", "flbc.privacy"])
def test_rooms_export_what_they_list(module):
    room = importlib.import_module(module)
    assert len(set(room.__all__)) == len(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)


@each_exception
def test_every_exception_is_public(exception):
    assert getattr(flbc, exception.__name__) is exception
    assert exception.__doc__


@each_exception
def test_every_exception_inherits_a_builtin_too(exception):
    if exception is errors.FlbcError:
        return
    others = [base for base in exception.__mro__ if base not in (Exception, BaseException, object)]
    assert any(base.__module__ == builtins.__name__ for base in others)


def test_docstring_tree_is_the_class_tree():
    # "│   ├── Name (Builtin)   text": four characters of indentation per level
    lines = re.findall(r"^    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?(?:  .*)?$", errors.__doc__, re.MULTILINE)
    documented, path = {}, []
    for indent, name, builtin in lines:
        level = len(indent) // 4
        path = [*path[:level], name]
        documented[name] = (path[-2] if level else "Exception", builtin)
    actual = {}
    for exception in EXCEPTIONS:
        first, *rest = exception.__bases__
        actual[exception.__name__] = (first.__name__, rest[0].__name__ if rest else "")
    assert documented == actual
