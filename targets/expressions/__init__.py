"""planish.targets.expressions: each op's tensor expression."""
