"""What is saved: the adapter's folder and header, strict loading, and many adapters on one base."""
