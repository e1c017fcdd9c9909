"""What an agent says that it has cost: the last JSON object of its output."""

import json

import pytest

from lab.agents import spent

CLAUDE = {"type": "result", "total_cost_usd": 0.25, "usage": {"input_tokens": 1000, "output_tokens": 200, "tier": "x"}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (json.dumps(CLAUDE), {"agent_usd": 0.25, "agent_tokens": 1200}),
        (json.dumps(CLAUDE, indent=2), {"agent_usd": 0.25, "agent_tokens": 1200}),
        (f"done\n{json.dumps({'cost_usd': 1})}\nbye", {"agent_usd": 1}),
        (f"{json.dumps({'cost_usd': 1})}\n{json.dumps({'cost_usd': 2})}\n", {"agent_usd": 2}),
        ('{"cost_usd": -1, "usage": {"input_tokens": -5}}', {}),
        ('{"cost_usd": true, "usage": [1]}', {}),
        ('{"cost_usd": NaN}', {}),
        ("[1, 2]\n{torn", {}),
        ("{" * 100_000, {}),
        ("", {}),
    ],
)
def test_what_it_cost(tmp_path, said, expected):
    (tmp_path / "agent.log").write_text(said)
    assert spent(tmp_path / "agent.log") == expected
