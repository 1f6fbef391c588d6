"""Power cuts, simulated on real filesystems: record a device's writes, then mount every state a cut could leave."""
