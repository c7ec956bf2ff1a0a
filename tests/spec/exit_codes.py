"""What `cds` says and how it exits: 0 fine, 1 the answer is no, 2 usage or configuration, 3 a peer failed, 4 policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.peers.server import FIXTURES, Server

NAME = "exit-codes"
TITLE = "Exit codes of `cds`"
HEADER = ("When", "the command", "exits with", "and says")

JENNY = str(FIXTURES / "patients" / "jenny-m.bundle.json")
STEPS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("there is no instance yet", "cds patient a/1", {}),
    ("a file is landed", f"cds land {JENNY} --namespace a", {}),
    ("the same file is landed again", f"cds land {JENNY} --namespace a", {}),
    ("a file is no FHIR", "cds land broken.json", {}),
    ("a path does not exist", "cds land nowhere.json", {}),
    ("a patient is unknown", "cds patient a/nobody", {}),
    ("an inference is unknown", "cds inference 0190", {}),
    ("a model version does not exist", "cds models use breast-cancer-prognosis predict-breast@0.0.1", {}),
    ("a service does not exist", "cds service stop no-such-service", {}),
    ("the log is whole", "cds ledger verify --deep", {}),
    ("a setting is wrong", "cds digest", {"CDS_DATABASE_URL": "mysql://x"}),
    ("anybody would be let in from outside", "cds serve --host 0.0.0.0", {"CDS_TRUST": "open"}),
    ("the database server does not answer", "cds digest", {"CDS_DATABASE_URL": "postgresql+psycopg://u@127.0.0.1:9/x"}),
    ("somebody acts under a name that is not allowed", "cds digest --as the-boss", {}),
    ("the sandbox should call another machine", "cds sandbox --to http://cds.example.org", {}),
    ("the folder for a backup is not empty", "cds backup .", {}),
    ("the command is unknown", "cds frobnicate", {}),
)


def told(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    (folder / "broken.json").write_text("not FHIR")
    instance = Server(home=folder, data_dir=folder / "var", environment={"COLUMNS": "100"})
    for when, command, changes in STEPS:
        done = instance.cds(*command.split()[1:], code=None, **changes)
        said = (done.stderr or done.stdout).strip().splitlines()
        shown = command.replace(JENNY, Path(JENNY).name)
        yield when, f"`{shown}`", str(done.returncode), _settled(said[-1] if said else "")


def _settled(line: str) -> str:
    """Without what differs from run to run (the head of a log), and without a list of all commands."""
    before, head, after = line.partition(", head ")
    settled = before + after[after.find("…") + 1 :] if head else line
    return settled.partition(" (choose from")[0]
