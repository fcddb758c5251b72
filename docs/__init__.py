"""The documentation: pages by task, and what makes the generated ones."""
