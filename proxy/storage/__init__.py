"""What keeps things beyond this process, whatever they are: a file of SQLite, the servers of Redis."""
