"""What people read: tables and the state of runs. Reads run directories, imports nothing else of scorelab."""
