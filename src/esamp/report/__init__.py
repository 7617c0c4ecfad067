"""What people read: tables, figures and HTML pages."""
