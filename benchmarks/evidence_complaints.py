"""What `casemate scan` and four other scanners say of the benign files that users of such scanners complain about.

    make evidence-complaints

Writes docs/evidence/complaints.md; 1 where this project's own verdict on any of them is not the right one.
"""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from complaint_files import cases
from evidence import ROOT, facts_of, table, told
from evidence_artifacts import PEERS, answers

from casemate.formats.scanning.walking import scan_file

PAGE = ROOT / "docs" / "evidence" / "complaints.md"
OTHERS = ("picklescan", "modelscan", "fickling", "modelaudit")
INTRODUCTION = """\
# Benign files that users of scanners complain about

Made by `make evidence-complaints` on {day}; {facts}. Peers: {peers}.

Each row is a thread in a public tracker: somebody has a harmless file, and a tool flags or refuses it. The file is made
here from the names that the thread reports, or by the library itself; nothing is loaded. Peers: `flagged` is an alarm,
`warned` what a tool calls suspicious below its alarm, `error` that it could not read the file. Right is what the file
deserves: `clean`; `suspicious` where it needs code that no table can know; `unknown` where nothing can be read.
"""


def main() -> int:
    """Make the files, ask every scanner, write the page."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for at, case in enumerate(cases()):
            path = Path(folder) / f"{at:03}" / case.name
            path.parent.mkdir()
            path.write_bytes(case.make())
            files.append((case, path))
        peers = {tool: answers(tool, (path for _, path in files)) for tool in OTHERS}
        rows, wrong = [], 0
        for case, path in files:
            ours = str(scan_file(path).level)
            wrong += ours != case.right
            said = [peers[tool][str(path)]["said"].split(":")[0] for tool in OTHERS]
            right = f"{case.right} ({case.because})" if case.because else case.right
            rows.append(
                (_link(case.thread), case.tool, case.what, *said, ours, right, "yes" if ours == case.right else "NO")
            )
    columns = ("thread", "complaint about", "file", *OTHERS, "casemate", "right", "as it should be")
    names = ", ".join(packages[0] for packages in PEERS.values())
    lines = [INTRODUCTION.format(day=date.today().isoformat(), facts=told(facts_of()), peers=names)]
    lines += [*table(columns, rows), "", _summary(rows, wrong), ""]
    PAGE.write_text("\n".join(lines))
    print(lines[-2])
    return 1 if wrong else 0


def _link(thread: str) -> str:
    repository, number = thread.split("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})"


def _summary(rows: list[tuple[str, ...]], wrong: int) -> str:
    alarms = [f"{tool} {sum(row[3 + at] == 'flagged' for row in rows)}" for at, tool in enumerate(OTHERS)]
    mine = sum(row[7] == "malicious" for row in rows)
    good = f"Of {len(rows)} files casemate judges {len(rows) - wrong} as it should."
    return f"{good} Alarms: casemate {mine}, {', '.join(alarms)}."


if __name__ == "__main__":
    raise SystemExit(main())
