"""What stays, what goes, and why: evidence, roots and rules in, a plan out."""

#: Of plan.json. It is here for ``kprune-ld``, which looks at the file before it imports numpy for the rest.
SCHEMA = 5
