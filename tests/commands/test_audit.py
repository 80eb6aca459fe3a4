import json
import subprocess
import sys
from pathlib import Path

from flbc.crypto.signing import checksum_address
from tests.commands.conftest import fails, run


def test_audit_of_a_settled_task(settled):
    result = run("audit", settled.task.hex()[:10])
    shown = " ".join(result.stdout.split())
    for block in settled.records:
        leader = settled.actors[block.block.leader].name
        assert f" {block.label.round} 0 {leader} (0) 4 3/3" in shown
    for text in (
        "sum 1.000000000000000007 = escrow",
        "escrow 1.000000000000000007 ether, fetched 0 ether, 1.000000000000000007 ether wait to be fetched",
        "2 blocks with 8 signed updates",
        "spent of 3",
        "model https://models.example/heart",
        "note: Compute times are attested by software, not hardware",
        checksum_address(settled.actors[1].account.address),
    ):
        assert text in shown, text
    assert result.stdout.rstrip().endswith("everything verifies")
    assert "reading task" in result.stderr


def test_newest_task_is_audited_by_default(settled):
    assert "status     published" in run("audit").stdout


def test_json(settled):
    result = run("audit", settled.task.hex(), "--json")
    report = json.loads(result.stdout)
    assert report["ok"] is True
    assert report["reward"] == "1000000000000000007"
    assert sum(int(row["amount"]) for row in report["payouts"]) == 10**18 + 7
    assert [row["round"] for row in report["rounds"]] == [1, 2]


def test_exported_file_is_audited_without_a_chain(settled, home, folder):
    shown = run("audit", settled.task.hex(), "--export", "out/task.json")
    assert "`flbc audit --from out/task.json` audits it without a chain" in shown.stderr
    home.rename(folder / "gone")
    again = run("audit", "--from", "out/task.json", "--rpc", "http://127.0.0.1:9")
    assert again.stdout == shown.stdout
    assert not home.exists()
    assert run("audit", settled.task.hex()[:4], "--from", "out/task.json").stdout == shown.stdout
    told = fails("audit", "ffff", "--from", "out/task.json")
    assert f"out/task.json is about task {settled.task.hex()}, not ffff" in told


def test_tampered_export(settled, folder):
    run("audit", settled.task.hex(), "--export", "task.json")
    text = (folder / "task.json").read_text()
    (folder / "task.json").write_text(text.replace('"link":"https://m', '"link":"https://[red]M\\u001b[2J'))
    result = run("audit", "--from", "task.json", code=1)
    assert "doubt: settlement.model_signature: " in result.stdout
    assert "2 doubts: do not rely on this task" in result.stdout
    assert "everything verifies" not in result.stdout
    assert r"https://[red]M\x1b[2Jodels" in result.stdout
    assert "\x1b" not in result.stdout
    report = json.loads(run("audit", "--from", "task.json", "--json", code=1).stdout)
    assert report["ok"] is False
    assert len(report["doubts"]) == 2


def test_block_with_a_doubt_is_marked(settled, folder):
    run("audit", settled.task.hex(), "--export", "task.json")
    data = json.loads((folder / "task.json").read_text())
    data["blocks"][0]["leader_signature"] = data["blocks"][1]["leader_signature"]
    (folder / "task.json").write_text(json.dumps(data, sort_keys=True, separators=(",", ":")))
    shown = run("audit", "--from", "task.json", code=1).stdout
    header = next(line for line in shown.splitlines() if "leader (rank)" in line)
    rows = [line.split() for line in shown.splitlines() if "(0)" in line]
    assert header.split()[-1] == "doubts"
    assert [row[-1] for row in rows] == ["1", "0"]


def test_files_that_are_no_export(folder):
    assert "Cannot read the exported history none.json" in fails("audit", "--from", "none.json")
    for content in (b"", b"{}", b"[", b"[" * 100_000, b"\xff", b'{"a": 1}'):
        (folder / "bad.json").write_bytes(content)
        assert "bad.json is nothing that `flbc audit --export` wrote" in fails("audit", "--from", "bad.json")


def test_export_that_cannot_be_written(settled, folder):
    (folder / "file").touch()
    assert "Cannot write file/task.json" in fails("audit", settled.task.hex(), "--export", "file/task.json")


def test_nothing_to_audit(home):
    assert "There is no deployment on chain" in fails("audit")
    run("deploy")
    told = fails("audit")
    assert "There is no task on hub" in told
    assert "`flbc demo` runs one" in told
    assert "there is no task on this hub yet" in run("task", "status").stderr


def test_program_exits_as_the_audit_did(settled, folder):
    flbc = str(Path(sys.executable).parent / "flbc")
    run("audit", settled.task.hex(), "--export", "task.json")
    text = (folder / "task.json").read_text()
    (folder / "bad.json").write_text(text.replace('"link":"https://m', '"link":"https://n'))
    (folder / "none.json").write_text("{}")
    for file, code, told in (
        ("task.json", 0, "everything verifies"),
        ("bad.json", 1, "2 doubts"),
        ("none.json", 1, "error: none.json is nothing that"),
    ):
        result = subprocess.run([flbc, "audit", "--from", file], capture_output=True, text=True, check=False)
        assert result.returncode == code
        assert told in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


def test_unreachable_node(home):
    for command in (("audit",), ("task", "status"), ("task", "sync")):
        told = fails(*command, "--rpc", "http://127.0.0.1:9")
        assert "The node http://127.0.0.1:9 does not answer" in told
        assert "start it with `flbc chain up`" in told
