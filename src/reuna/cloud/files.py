"""What the cloud keeps in its state folder, by name. Whoever only looks there loads nothing of the cloud."""

from __future__ import annotations

ALARMS = "alarms.json"  #: about what nodes watch, and who has seen them
AUDIT = "audit.jsonl"  #: the audit trail
EVENTS = "events.sqlite"  #: what happened in runs
HEADS = "heads.sqlite"  #: countersigned heads of the nodes' ledgers
PEOPLE = "people.sqlite"  #: accounts, sessions and proposals
TRIGGERS = "schedules.json"  #: what begins runs by itself: schedules, drift, nodes that join
