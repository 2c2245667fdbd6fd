"""The peers: each system's own rule with Python's standard library, and the same whole-row Merkle roots, over NDJSON.

`chains.py FORMAT FILE`; secrets come by the systems' own variables. Prints each chain's count and root, fails at the first bad row.
"""

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone

AEGISAGENT = (
    "action action_hash agent_id approver decision event_id prev_receipt_hash resource run_id source_trust tool trace_id ts user_id"
).split()
CARACAL_TEXT = (
    "id zone_id event_type request_id decision policy_set_id policy_set_version_id manifest_sha evaluation_status"
).split()
CARACAL_JSON = "determining_policies_json diagnostics_json metadata_json".split()
Z4J_TEXT = "action outcome result source_ip target_id target_type user_agent prev_row_hmac hmac_key_id".split()
Z4J_UUID = "api_key_id event_id id project_id user_id chain_generation".split()
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Checked = tuple[str, str | None, str]


def compact(value: object) -> bytes:
    """Writes JSON without spaces, members sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def aegisagent(row: dict) -> Checked:
    """Checks a receipt."""
    hashed = {name: row["id" if name == "event_id" else name] for name in AEGISAGENT}
    if hashlib.sha256(compact(hashed)).hexdigest() != row["receipt_hash"]:
        sys.exit(f"broken at {row['id']}")
    return row["tenant_id"], row["prev_receipt_hash"] or None, row["receipt_hash"]


def caracal(row: dict, key: bytes = bytes.fromhex(os.environ.get("AUDIT_HMAC_KEY", ""))) -> Checked:
    """Checks an audit event."""
    parts = [row[name] or "" for name in CARACAL_TEXT]
    parts += [row[name] or "null" for name in CARACAL_JSON]
    since = datetime.fromisoformat(row["occurred_at"] + ":00") - EPOCH
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    content = hashlib.sha256(("\x1f".join(parts) + f"\x1f{micros * 1000}").encode()).hexdigest()
    prev = row["prev_content_sha256"]
    seal = hmac.digest(key, f"{content}|{prev or ''}".encode(), "sha256").hex()
    if content != row["content_sha256"] or seal != row["chain_hmac"]:
        sys.exit(f"broken at {row['id']}")
    return row["zone_id"], prev, content


def dashed(text: str | None) -> str | None:
    """Spells a UUID with dashes."""
    return text and f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def z4j(row: dict, secret: bytes = os.environ.get("Z4J_AUDIT_CHAIN_SECRET", "").encode()) -> Checked:
    """Checks a row of era C."""
    form = {name: row[name] for name in Z4J_TEXT} | {name: dashed(row[name]) for name in Z4J_UUID}
    form["metadata"] = json.loads(row["metadata"])
    form["occurred_at"] = datetime.fromisoformat(row["occurred_at"] + "+00:00").isoformat(timespec="microseconds")
    form["version"] = 2
    if hmac.digest(secret, b"z4j/audit-chain/row/v2\0" + compact(form), "sha256").hex() != row["row_hmac"]:
        sys.exit(f"broken at {row['id']}")
    return form["chain_generation"], row["prev_row_hmac"], row["row_hmac"]


def push(nodes: list[tuple[int, bytes]], leaf: bytes) -> None:
    """Adds a leaf to a compact range (RFC 6962)."""
    level = 0
    while nodes and nodes[-1][0] == level:
        leaf = hashlib.sha256(b"\x01" + nodes.pop()[1] + leaf).digest()
        level += 1
    nodes.append((level, leaf))


def main() -> None:
    """Checks a file."""
    rules: dict[str, Callable[[dict], Checked]] = {"aegisagent": aegisagent, "caracal": caracal, "z4j": z4j}
    check = rules[sys.argv[1]]
    heads: dict[str, str | None] = {}
    trees: dict[str, list[tuple[int, bytes]]] = {}
    count = 0
    with open(sys.argv[2], "rb") as lines:
        for line in lines:
            row = json.loads(line)
            chain, prev, link = check(row)
            if prev != heads.get(chain):
                sys.exit(f"{chain}: a link does not fit at {row['id']}")
            heads[chain] = link
            push(trees.setdefault(chain, []), hashlib.sha256(b"\x00" + compact(row)).digest())
            count += 1
    for chain, nodes in sorted(trees.items()):
        root = nodes.pop()[1]
        while nodes:
            root = hashlib.sha256(b"\x01" + nodes.pop()[1] + root).digest()
        print(chain, heads[chain], root.hex())
    print(count)


if __name__ == "__main__":
    main()
