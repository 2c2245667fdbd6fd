"""The peer: AegisAgent's own rule (formats: aegis-jcs-1) with Python's standard library, and the same whole-row Merkle root.

Reads a table of receipts in order of insertion, checks every hash and link, prints the count and the tenants' roots.
"""

import hashlib
import json
import sqlite3
import sys

MEMBERS = (
    "action action_hash agent_id approver decision event_id prev_receipt_hash resource run_id source_trust tool trace_id ts user_id"
).split()


def push(nodes: list[tuple[int, bytes]], leaf: bytes) -> None:
    """Adds a leaf to a compact range (RFC 6962)."""
    level = 0
    while nodes and nodes[-1][0] == level:
        leaf = hashlib.sha256(b"\x01" + nodes.pop()[1] + leaf).digest()
        level += 1
    nodes.append((level, leaf))


def main() -> None:
    """Checks the table of the database named by the first argument."""
    connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    heads: dict[str, str] = {}
    trees: dict[str, list[tuple[int, bytes]]] = {}
    count = 0
    for row in connection.execute("SELECT * FROM action_receipts ORDER BY rowid"):
        record = dict(row)
        hashed = {name: record["id" if name == "event_id" else name] for name in MEMBERS}
        text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        tenant = record["tenant_id"]
        if digest != record["receipt_hash"] or record["prev_receipt_hash"] != heads.get(tenant, ""):
            sys.exit(f"broken at {record['id']}")
        heads[tenant] = digest
        line = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        push(trees.setdefault(tenant, []), hashlib.sha256(b"\x00" + line.encode()).digest())
        count += 1
    for tenant, nodes in sorted(trees.items()):
        root = nodes.pop()[1]
        while nodes:
            root = hashlib.sha256(b"\x01" + nodes.pop()[1] + root).digest()
        print(tenant, heads[tenant], root.hex())
    print(count)


if __name__ == "__main__":
    main()
