"""What the computer is and allows: processes and how they are started and stopped, memory, locks on folders."""
