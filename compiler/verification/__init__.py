"""How an artefact is judged: references, what rounding may do, inputs where faults hide."""
