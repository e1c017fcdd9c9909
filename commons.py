"""Read and write the knowledge commons: what every experiment has left, and what was learnt from it.

    uv run commons.py read-brief                what an agent should know before it plans
    uv run commons.py show last                 one card, by its id, the beginning of it, or "last"
    uv run commons.py import results.tsv        take in another project's experiments
    uv run commons.py --help                    all commands

As a library: `from commons import create_card, load_cards, read_brief, ...` (docs/protocol.md).
Not covered: running experiments (train.py) and planning them.
"""

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode and __name__ == "__main__":
    # Containers often ask for no bytecode, to keep source trees tidy; compiling would be a third of every command.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.path.expanduser("~/.cache/autoresearch-commons/bytecode")

from lab import cli
from lab.store import knowledge_dir

KNOWLEDGE_DIR = knowledge_dir(Path(__file__).resolve().parent)

READ, WRITE, JUDGE = "lab.cli_read", "lab.cli_write", "lab.cli_judge"
COMMANDS = {
    "init": WRITE, "read-brief": READ, "read-meta": READ, "coverage": READ, "show": READ, "search": READ, "query": READ,
    "best": READ, "history": READ, "near-misses": READ, "tags": READ, "diff": READ, "lineage": READ, "plot": READ,
    "write-card": WRITE, "annotate": WRITE, "retract": WRITE, "confirm": WRITE, "note": WRITE, "answer": WRITE,
    "synthesize": WRITE, "update-meta": WRITE, "update-index": WRITE, "import": WRITE, "export": READ, "doctor": WRITE,
    "sync": WRITE, "noise": JUDGE, "champion": JUDGE, "challengers": JUDGE, "findings": JUDGE,
    "check": "lab.cli_check", "audit": "lab.cli_audit", "report": "lab.cli_report", "sweep-confirm": "lab.cli_sweep",
}  # fmt: skip

# The library: where each name is at home. They are loaded when they are asked for, so that a command pays for none.
LIBRARY = {
    "lab.cards": ("add_card", "create_card", "join", "join_run", "load_cards"),
    "lab.library": (
        "draw", "generate_progress_plot", "get_card", "get_cards_by_tag", "get_champion", "get_coverage_map",
        "get_platform_findings", "get_recent_cards", "load_index", "read_brief", "retract_card", "update_index",
    ),
    "lab.notes": ("add_note", "load_notes"),
    "lab.schema": ("validate_card", "validate_event", "validate_note"),
    "lab.synthesis": (
        "generate_session_synthesis", "get_meta_synthesis", "get_open_questions", "update_meta_synthesis",
    ),
}  # fmt: skip
__all__ = ["KNOWLEDGE_DIR", *(name for names in LIBRARY.values() for name in names)]
__getattr__ = cli.exports(__name__, LIBRARY)

if __name__ == "__main__":
    sys.exit(cli.main("commons.py", __doc__ or "", COMMANDS, sys.argv[1:]))
