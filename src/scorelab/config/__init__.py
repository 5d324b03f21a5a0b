"""From words to objects: configs checked, built and taken up again."""
