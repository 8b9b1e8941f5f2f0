"""The verbs, one module a group; imported only when one of them is called."""
