"""Three months of a department in minutes: what arrives, and what comes of it."""
